/* SPDX-License-Identifier: MIT
 *
 * bench_channel.c - how fast bytes go in and out of a VM:
 *   stdout_vs_virtio_serial  64 MiB of a command's output
 *   put_vs_virtio_serial     a file of 64 MiB into the VM
 *   get_vs_virtio_serial     and out of it
 * each against `cat` of the same bytes through a virtio-serial port of a plain QEMU
 * with the same accelerator, kernel, image and memory; and, in the same VM,
 *   ping_under_load_vs_idle  a round trip to the agent while such a file is on its way
 *
 * Usage: bench_channel ACCEL KERNEL IMAGE [ROUNDS]
 *
 * The pool "default" runs on that accelerator with VMs of 256 MiB. A program's own files
 * are memory on both sides. The contestants take turns, round by round, so that a
 * drifting machine slows all.
 */
#include "shm/vmpool.h"
#include "tests/bench/benchqemu.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MEM_MIB 256
#define SIZE ((size_t)64 << 20)
#define CHUNK ((size_t)64 << 10) /* what a program reads and writes at a time */
#define FILE_IN_GUEST "/tmp/bench"
#define DEADLINE_MS 120000
#define PINGS 200

static struct vmpool_vm *vm;
static struct benchqemu qemu;
static int original, copy; /* files of this program */

/* --- the program's own files ---------------------------------------------------------- */

static int
memory_file(void)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)SIZE) < 0)
		bench_die("memfd: %m");
	return fd;
}

static void
rewind_file(int fd)
{
	(void)lseek(fd, 0, SEEK_SET);
}

/* Bytes of which none is like its neighbours, nor a block like another. */
static void
fill(int fd)
{
	static uint32_t block[CHUNK / 4];
	uint32_t x = 1;

	for (size_t at = 0; at < SIZE; at += CHUNK) {
		for (size_t i = 0; i < ARRAY_SIZE(block); i++)
			block[i] = x = x * 1664525u + 1013904223u;
		if (write(fd, block, CHUNK) != (ssize_t)CHUNK)
			bench_die("memfd: %m");
	}
}

static void
compare_files(void)
{
	const void *a = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, original, 0);
	const void *b = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, copy, 0);

	if (a == MAP_FAILED || b == MAP_FAILED || memcmp(a, b, SIZE) != 0)
		bench_die("what came out of the VM is not what went in");
	(void)munmap((void *)a, SIZE);
	(void)munmap((void *)b, SIZE);
}

static void
forget_copy(void)
{
	if (ftruncate(copy, 0) < 0 || ftruncate(copy, (off_t)SIZE) < 0)
		bench_die("memfd: %m");
	rewind_file(copy);
}

/* --- a pool's VM ----------------------------------------------------------------------- */

static ssize_t
read_original(void *arg, void *buf, size_t len)
{
	(void)arg;
	return read(original, buf, len);
}

static int
write_copy(void *arg, const void *buf, size_t len)
{
	(void)arg;
	return write(copy, buf, len) == (ssize_t)len ? 0 : -EIO;
}

static void
must(int r, const char *what)
{
	if (r < 0)
		bench_die("%s: %s", what, vmpool_strerror(r));
}

static void
put(void)
{
	/* Old and new do not fit into the guest at once. */
	(void)vmpool_remove_file(vm, FILE_IN_GUEST, NULL);
	rewind_file(original);
	must(vmpool_write_file_from(vm, FILE_IN_GUEST, NULL, read_original, NULL, NULL), "put");
}

static void
get(void)
{
	forget_copy();
	must(vmpool_read_file_to(vm, FILE_IN_GUEST, NULL, write_copy, NULL, NULL), "get");
}

static void
out(void)
{
	static const char *const argv[] = {"cat", FILE_IN_GUEST, NULL};
	struct vmpool_event event = {0};
	struct vmpool_proc *proc;

	forget_copy();
	must(vmpool_spawn(vm, argv, NULL, &proc), "cat");
	while (event.type != VMPOOL_EXIT) {
		must(vmpool_proc_next(proc, DEADLINE_MS, &event), "output");
		if (event.type == VMPOOL_STDOUT)
			must(write_copy(NULL, event.data, event.len), "memfd");
	}
	vmpool_proc_free(proc);
}

/* --- the port of a plain QEMU ----------------------------------------------------------- */

/* Until QEMU has told the guest of our connection, `cat` would meet an end of file, or
 * write into nothing: the first byte proves it. One descriptor throughout, since closing
 * the port drops what has come. */
#define PORT_SCRIPT(cat) \
	"exec 3<>" BENCHQEMU_PORT "; until [ \"$(dd bs=1 count=1 <&3 2>/dev/null)\" = g ]; " \
	"do :; done; " cat

static int
port_begin(const char *script)
{
	int port = benchqemu_port(&qemu);

	benchqemu_start_sh(&qemu, script);
	if (write(port, "g", 1) != 1)
		bench_die("QEMU's port takes nothing");
	return port;
}

static void
port_put(void)
{
	int port = port_begin(PORT_SCRIPT("cat <&3 >" FILE_IN_GUEST));
	static uint8_t buf[CHUNK];
	ssize_t n;

	rewind_file(original);
	while ((n = read(original, buf, sizeof(buf))) > 0)
		if (send(port, buf, (size_t)n, MSG_NOSIGNAL) != n)
			bench_die("QEMU's port takes no more");
	/* A closed socket is one that QEMU reads no more from, whatever is in it. */
	(void)shutdown(port, SHUT_WR);
	benchqemu_wait_sh(&qemu);
	(void)close(port);
}

static void
port_get(void)
{
	int port = port_begin(PORT_SCRIPT("cat " FILE_IN_GUEST " >&3"));
	static uint8_t buf[CHUNK];

	forget_copy();
	for (size_t have = 0; have < SIZE;) {
		struct pollfd p = {port, POLLIN, 0};
		ssize_t n = poll(&p, 1, DEADLINE_MS) == 1 ? read(port, buf, sizeof(buf)) : -1;

		if (n <= 0)
			bench_die("QEMU's port gives no more than %zu bytes", have);
		must(write_copy(NULL, buf, (size_t)n), "memfd");
		have += (size_t)n;
	}
	benchqemu_wait_sh(&qemu);
	(void)close(port);
}

/* --- pings ------------------------------------------------------------------------------- */

static atomic_bool done;

static void *
keep_putting(void *arg)
{
	(void)arg;
	while (!atomic_load(&done))
		put();
	return NULL;
}

static void
ping_often(struct samples *rtt)
{
	uint64_t ns;

	for (int i = 0; i < PINGS; i++) {
		must(vmpool_ping(vm, DEADLINE_MS, &ns), "ping");
		samples_add(rtt, (double)ns);
	}
}

static int
pings(const char *accel)
{
	struct samples idle = {0}, load = {0};
	pthread_t thread;
	double base;
	int r;

	ping_often(&idle);
	if (pthread_create(&thread, NULL, keep_putting, NULL) != 0)
		bench_die("no thread");
	ping_often(&load);
	atomic_store(&done, true);
	(void)pthread_join(thread, NULL);
	base = samples_percentile(&idle, 50);
	(void)printf("  ping of an idle VM: %.3f ms; while a file goes into it: %.3f ms\n",
		     base / 1e6, samples_percentile(&load, 50) / 1e6);
	r = report(&(struct figure){.name = "ping_under_load_vs_idle",
				    .accel = accel,
				    .unit = "x",
				    .value = samples_percentile(&load, 50) / base,
				    .goal = 5,
				    .lower_is_better = true,
				    .p50 = samples_percentile(&load, 50) / base,
				    .p99 = samples_percentile(&load, 99) / base,
				    .n = load.n});
	samples_fini(&idle);
	samples_fini(&load);
	return r;
}

/* --- all of it ---------------------------------------------------------------------------- */

struct contest {
	const char *name;
	void (*ours)(void), (*theirs)(void);
	bool brings; /* the file back */
	struct samples our_ms, their_ms;
};

static void
time_one(void (*run)(void), bool brings, struct samples *ms)
{
	uint64_t start = now_ns();

	run();
	samples_add(ms, ms_since(start));
	if (brings)
		compare_files();
}

static int
verdict(struct contest *c, const char *accel)
{
	double ours = samples_percentile(&c->our_ms, 50);
	double theirs = samples_percentile(&c->their_ms, 50);

	(void)printf("  %s: 64 MiB in %.0f ms (%.0f MiB/s) and %.0f ms (%.0f MiB/s)\n", c->name,
		     ours, 64e3 / ours, theirs, 64e3 / theirs);
	return report(&(struct figure){.name = c->name,
				       .accel = accel,
				       .unit = "x",
				       .value = theirs / ours,
				       .goal = 1.5,
				       .p50 = theirs / ours,
				       .p99 = theirs / samples_percentile(&c->our_ms, 99),
				       .n = c->our_ms.n});
}

static void
prepare(const char *const *argv, struct vmpool **pool)
{
	const struct vmpool_acquire_opts patience = {.timeout_ms = DEADLINE_MS};
	const struct benchqemu_config cfg = {argv[1], argv[2], argv[3], MEM_MIB};

	if (vmpool_attach(pool, NULL) != 0 || vmpool_acquire(*pool, &patience, &vm) != 0)
		bench_die("the pool: %s", vmpool_error(NULL));
	original = memory_file();
	copy = memory_file();
	fill(original);
	benchqemu_new(&qemu, &cfg);
}

int
main(int argc, char **argv)
{
	struct contest contests[] = {
	    {.name = "put_vs_virtio_serial", .ours = put, .theirs = port_put},
	    {.name = "get_vs_virtio_serial", .ours = get, .theirs = port_get, .brings = true},
	    {.name = "stdout_vs_virtio_serial", .ours = out, .theirs = port_get, .brings = true},
	};
	int rounds = argc == 5 ? atoi(argv[4]) : 3, r = 0;
	struct vmpool *pool;

	if (argc < 4 || rounds < 1)
		bench_die("usage: bench_channel ACCEL KERNEL IMAGE [ROUNDS]");
	prepare((const char *const *)argv, &pool);
	for (int i = 0; i < rounds; i++)
		for (size_t c = 0; c < ARRAY_SIZE(contests); c++) {
			time_one(contests[c].ours, contests[c].brings, &contests[c].our_ms);
			time_one(contests[c].theirs, contests[c].brings, &contests[c].their_ms);
		}
	benchqemu_end(&qemu);
	for (size_t c = 0; c < ARRAY_SIZE(contests) && r == 0; c++) {
		r = verdict(&contests[c], argv[1]);
		samples_fini(&contests[c].our_ms);
		samples_fini(&contests[c].their_ms);
	}
	if (r == 0)
		r = pings(argv[1]);
	(void)vmpool_release(vm);
	vmpool_detach(pool);
	return r == 0 ? 0 : 1;
}
