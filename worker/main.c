/* SPDX-License-Identifier: MIT
 *
 * main.c - vmpool-worker: the fork server and its workers, and the questions
 * that only they can answer (probe, doctor). Not for people: vmpoold and
 * vmpool start it.
 */
#include "worker/accel.h"
#include "worker/adopt.h"
#include "worker/doctor.h"
#include "worker/fsrv.h"

#include <fcntl.h>
#include <getopt.h>
#include <string.h>

struct options {
	int control, segment, lock, snapshot, supervisor;
	int memory, vcpus;
	const char *accel, *kernel, *image, *remove, *warmup;
	bool json;
};

static const struct {
	const char *name;
	bool number;
	size_t offset;
} table[] = {
    {"control-fd", true, offsetof(struct options, control)},
    {"segment-fd", true, offsetof(struct options, segment)},
    {"lock-fd", true, offsetof(struct options, lock)},
    {"snapshot-fd", true, offsetof(struct options, snapshot)},
    {"supervisor-pid", true, offsetof(struct options, supervisor)},
    {"memory", true, offsetof(struct options, memory)},
    {"vcpus", true, offsetof(struct options, vcpus)},
    {"accel", false, offsetof(struct options, accel)},
    {"kernel", false, offsetof(struct options, kernel)},
    {"image", false, offsetof(struct options, image)},
    {"remove", false, offsetof(struct options, remove)},
    {"warmup", false, offsetof(struct options, warmup)},
};

static int
set_option(struct options *o, size_t i, const char *value)
{
	char *field = (char *)o + table[i].offset, *end;
	long n;

	if (!table[i].number) {
		memcpy(field, &value, sizeof(value));
		return 0;
	}
	errno = 0;
	n = strtol(value, &end, 10);
	if (errno != 0 || *value == '\0' || *end != '\0' || n < 0 || n > INT32_MAX) {
		(void)fprintf(stderr, "vmpool-worker: --%s: \"%s\" is not a number\n",
			      table[i].name, value);
		return -EINVAL;
	}
	memcpy(field, &(int){(int)n}, sizeof(int));
	return 0;
}

static int
parse(struct options *o, int argc, char **argv)
{
	struct option longs[ARRAY_SIZE(table) + 2] = {{0}};
	int i, json = ARRAY_SIZE(table);

	for (size_t j = 0; j < ARRAY_SIZE(table); j++)
		longs[j] = (struct option){table[j].name, required_argument, NULL, 1};
	longs[json] = (struct option){"json", no_argument, NULL, 1};
	for (int c; (c = getopt_long(argc, argv, "", longs, &i)) != -1;) {
		if (c != 1)
			return -EINVAL;
		if (i == json)
			o->json = true;
		else if (set_option(o, (size_t)i, optarg) < 0)
			return -EINVAL;
	}
	if (optind != argc)
		(void)fprintf(stderr, "vmpool-worker: unexpected argument \"%s\"\n", argv[optind]);
	return optind == argc ? 0 : -EINVAL;
}

static int
cmd_fork_server(const struct options *o)
{
	struct fsrv_config cfg = {
	    .control = o->control,
	    .lock = o->lock,
	    .supervisor = o->supervisor,
	    .remove = o->remove,
	    .warmup = o->warmup,
	    .snapshot = o->snapshot,
	    .worker = {.ops = machine_named(o->accel),
		       .machine = {.kernel = o->kernel,
				   .image = o->image,
				   .mem_mib = (uint32_t)o->memory,
				   .vcpus = (uint32_t)o->vcpus,
				   .mem_fd = -1}},
	};
	char err[512];
	int r;

	if (o->control < 0 || o->segment < 0 || o->supervisor <= 0 || o->kernel == NULL ||
	    o->image == NULL || cfg.worker.ops == NULL) {
		(void)fprintf(stderr, "vmpool-worker: fork-server is started by vmpoold only\n");
		return 2;
	}
	(void)fcntl(o->control, F_SETFD, FD_CLOEXEC);
	if (o->lock >= 0)
		(void)fcntl(o->lock, F_SETFD, FD_CLOEXEC);
	if (o->snapshot >= 0)
		(void)fcntl(o->snapshot, F_SETFD, FD_CLOEXEC);
	if (seg_attach(&cfg.worker.seg, o->segment, false, err, sizeof(err)) < 0) {
		(void)fprintf(stderr, "vmpool-worker: %s\n", err);
		return 1;
	}
	r = fsrv_run(&cfg);
	seg_close(cfg.worker.seg);
	return r;
}

static int
cmd_probe(const struct options *o)
{
	char why[600];
	const struct machine_ops *ops = accel_choose(o->accel, why, sizeof(why));

	if (ops == NULL) {
		(void)fprintf(stderr, "%s\n", why);
		return 1;
	}
	(void)printf("%s\t%s\n", ops->name, why);
	return 0;
}

static int
cmd_peek(const struct options *o)
{
	uint32_t mem_mib, vcpus;
	char err[512];

	if (adopt_peek(o->snapshot, &mem_mib, &vcpus, err, sizeof(err)) < 0) {
		(void)fprintf(stderr, "%s\n", err);
		return 1;
	}
	(void)printf("%u\t%u\n", mem_mib, vcpus);
	return 0;
}

static int
cmd_doctor(const struct options *o)
{
	return doctor_run(o->json);
}

static const struct {
	const char *name;
	int (*run)(const struct options *o);
} commands[] = {
    {"fork-server", cmd_fork_server},
    {"probe", cmd_probe},
    {"peek", cmd_peek},
    {"doctor", cmd_doctor},
};

int
main(int argc, char **argv)
{
	struct options o = {
	    .control = -1,
	    .segment = -1,
	    .lock = -1,
	    .snapshot = -1,
	    .memory = 128,
	    .vcpus = 1,
	    .accel = "auto",
	};

	for (size_t i = 0; argc >= 2 && i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		return parse(&o, argc - 1, argv + 1) < 0 ? 2 : commands[i].run(&o);
	}
	(void)fprintf(stderr,
		      "usage: vmpool-worker fork-server|probe|peek|doctor (see vmpoold(8))\n");
	return 2;
}
