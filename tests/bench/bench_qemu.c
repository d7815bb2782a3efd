/* SPDX-License-Identifier: MIT
 *
 * bench_qemu.c - how much sooner a software-emulated machine serves when it starts
 * from a template than when it boots: tcg_spawn_vs_boot until it has run a first
 * command, tcg_pong_vs_boot until its agent has answered a PING.
 *
 * Usage: bench_qemu KERNEL IMAGE [ROUNDS]
 *
 * A boot lasts from the start of QEMU until the agent has said READY. A spawn for a
 * command lasts until RENEW and then `echo hello` have been answered, the latter by
 * its output and its EXIT; another spawn measures the PONG. Boots and spawns take turns, so that a
 * drifting machine slows all. A shell is a machine that has taken in its state and waits to be let
 * run (worker/qemu_template.c), as the fork server keeps one ready; "alone" counts the start of its
 * QEMU as well.
 */
#include "tests/bench/report.h"
#include "worker/chan.h"
#include "worker/qemu_machine.h"

#include <string.h>
#include <sys/mman.h>

#define MEM_MIB 128
#define DEADLINE_NS 120000000000ull
#define SPAWNS 4 /* of each kind in a round */

struct guest {
	struct loop *loop;
	struct machine *machine;
	struct chan chan;
	struct loop_op timer, tick;
	unsigned readies, pongs, renewals, exits, captures;
	size_t out_len;
	char out[64]; /* of the command */
	uint64_t state_len;
};

static struct machine_template tmpl = {.mem_fd = -1, .state_fd = -1};
static char err[256];

/* --- a guest and its loop --------------------------------------------------------- */

static void
take_frame(struct guest *g, const struct proto_hdr *h, const uint8_t *payload)
{
	struct proto_renewed renewed;
	struct proto_exit ended;

	g->readies += h->type == PROTO_READY;
	g->pongs += h->type == PROTO_PONG;
	if (h->type == PROTO_RENEWED) {
		memcpy(&renewed, payload, sizeof(renewed));
		if (renewed.failed != 0)
			bench_die("the guest could not renew itself: step %u", renewed.failed);
		g->renewals++;
	} else if (h->type == PROTO_STDOUT) {
		size_t n = MIN(h->length, sizeof(g->out) - g->out_len);

		memcpy(g->out + g->out_len, payload, n);
		g->out_len += n;
	} else if (h->type == PROTO_EXIT) {
		memcpy(&ended, payload, sizeof(ended));
		if (ended.code != 0 || ended.signal != 0)
			bench_die("the command failed");
		g->exits++;
	} else if (h->type == PROTO_ERROR) {
		bench_die("the command did not start");
	}
}

static void
on_channel(void *owner)
{
	struct guest *g = owner;
	const uint8_t *payload;
	struct proto_hdr h;

	while (chan_recv(&g->chan, &h, &payload) == 1)
		take_frame(g, &h, payload);
	loop_stop(g->loop, 0);
}

static void
on_ended(void *owner)
{
	struct guest *g = owner;

	bench_die("the machine ended: %s", machine_qemu.end(g->machine));
}

static void
on_captured(void *owner, int error, uint64_t state_len, const char *why)
{
	struct guest *g = owner;

	if (error < 0)
		bench_die("capture: %s", why);
	g->captures++;
	g->state_len = state_len;
	loop_stop(g->loop, 0);
}

static void
on_timer(struct loop_op *op, int res)
{
	(void)op;
	if (res == -ETIME)
		bench_die("the machine does not answer");
}

static void
on_tick(struct loop_op *op, int res)
{
	struct guest *g = op->owner;

	if (res == -ETIME)
		loop_stop(g->loop, 0);
}

static void
start(struct guest *g, const struct machine_config *cfg)
{
	const struct machine_events events = {on_channel, on_ended, on_captured, g};

	memset(g, 0, sizeof(*g));
	if (loop_new(&g->loop, 32, err, sizeof(err)) < 0 ||
	    machine_qemu.start(&g->machine, cfg, g->loop, &events, err, sizeof(err)) < 0)
		bench_die("%s", err);
	chan_init(&g->chan, &machine_qemu, g->machine);
	loop_op_init(&g->timer, on_timer, g);
	loop_op_init(&g->tick, on_tick, g);
	loop_timer(g->loop, &g->timer, now_ns() + DEADLINE_NS);
}

static void
end(struct guest *g)
{
	loop_free(g->loop);
	machine_qemu.free(g->machine);
}

static void
await(struct guest *g, const unsigned *count)
{
	while (*count == 0)
		(void)loop_run(g->loop);
}

static void
send_frame(struct guest *g, uint8_t type, uint32_t stream, const void *payload, size_t len)
{
	const struct proto_hdr h = {.length = (uint32_t)len, .type = type, .stream = stream};
	int broken;

	chan_send(&g->chan, &h, payload);
	(void)chan_flush(&g->chan, &broken);
}

/* --- what is measured ---------------------------------------------------------------- */

static void
ping(struct guest *g)
{
	send_frame(g, PROTO_PING, 0, "ping", 4);
	await(g, &g->pongs);
}

/* As a worker does before any command runs. */
static void
renew(struct guest *g)
{
	struct proto_renew r;

	if (chan_renewal(&r) < 0)
		bench_die("no random bytes");
	send_frame(g, PROTO_RENEW, 0, &r, sizeof(r));
	await(g, &g->renewals);
}

/* Its first command: all that the guest runs for it is translated for the first time. */
static void
echo(struct guest *g)
{
	static const char strings[] = "echo\0hello\0\0", said[] = "hello\n";
	struct proto_exec e = {.size = sizeof(e) + sizeof(strings), .argc = 2};
	uint8_t req[sizeof(e) + sizeof(strings)];

	memcpy(req, &e, sizeof(e));
	memcpy(req + sizeof(e), strings, sizeof(strings));
	send_frame(g, PROTO_EXEC, 1, req, sizeof(req));
	await(g, &g->exits);
	if (g->out_len != sizeof(said) - 1 || memcmp(g->out, said, g->out_len) != 0)
		bench_die("the command's output is not what it was asked to say");
}

static int
memfd(void)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	if (fd < 0)
		bench_die("memfd: %m");
	return fd;
}

/* Boot; the first one becomes the template. */
static double
boot(struct machine_config cfg)
{
	struct machine_capture to = {-1, -1, 0, 0};
	uint64_t since;
	struct guest g = {0};
	double ms;

	cfg.mem_fd = memfd();
	if (ftruncate(cfg.mem_fd, (off_t)MEM_MIB << 20) < 0)
		bench_die("memfd: %m");
	since = now_ns();
	start(&g, &cfg);
	await(&g, &g.readies);
	ms = ms_since(since);
	ping(&g); /* all is set up */
	if (tmpl.mem_fd < 0) {
		to.state_fd = memfd();
		if (machine_qemu.capture(g.machine, &to, err, sizeof(err)) < 0)
			bench_die("capture: %s", err);
		await(&g, &g.captures);
		tmpl = (struct machine_template){
		    .mem_fd = cfg.mem_fd, .state_fd = to.state_fd, .state_len = g.state_len};
	} else {
		(void)close(cfg.mem_fd);
	}
	end(&g);
	return ms;
}

/* Nothing tells the owner that a shell has taken in its state: look every millisecond. */
static void
settle(struct guest *g)
{
	while (g->machine->stage != QEMU_PREPARED) {
		loop_timer(g->loop, &g->tick, now_ns() + 1000000);
		(void)loop_run(g->loop);
	}
}

static void
load(struct guest *g)
{
	uint64_t dirty;

	if (machine_qemu.load(g->machine, &dirty, err, sizeof(err)) < 0)
		bench_die("load: %s", err);
}

/* How long spawns have taken until their answer, in ms. */
struct spawns {
	struct samples pong, command;
};

static void
spawn_once(const struct machine_config *cfg, bool shell, bool command, struct samples *took)
{
	uint64_t since = now_ns();
	struct guest g = {0};

	start(&g, cfg);
	if (shell) {
		settle(&g);
		since = now_ns();
	}
	load(&g);
	if (command) {
		renew(&g);
		echo(&g);
	} else {
		ping(&g);
	}
	samples_add(took, ms_since(since));
	end(&g);
}

static void
round_of_spawns(const struct machine_config *cfg, struct spawns *shell, struct spawns *alone)
{
	for (int i = 0; i < SPAWNS; i++) {
		spawn_once(cfg, true, true, &shell->command);
		spawn_once(cfg, false, true, &alone->command);
		spawn_once(cfg, true, false, &shell->pong);
		spawn_once(cfg, false, false, &alone->pong);
	}
}

/* "20 ms (114.0 x)": the median, and how many of them make a boot. */
static void
say(const char *what, struct samples *s, double boot_ms)
{
	double ms = samples_percentile(s, 50);

	(void)printf("%s %.0f ms (%.1f x)", what, ms, boot_ms / ms);
}

static int
figure(const char *name, struct samples *s, double boot_ms)
{
	return report(&(struct figure){
	    .name = name,
	    .accel = "tcg",
	    .unit = "x",
	    .value = boot_ms / samples_percentile(s, 50),
	    .goal = 15,
	    .p50 = boot_ms / samples_percentile(s, 50),
	    .p99 = boot_ms / samples_percentile(s, 99),
	    .n = s->n,
	});
}

int
main(int argc, char **argv)
{
	int rounds = argc == 4 ? atoi(argv[3]) : 5;
	struct spawns shell = {0}, alone = {0};
	struct samples boots = {0};
	struct machine_config cfg;
	double b;

	if (argc < 3 || rounds < 1)
		bench_die("usage: bench_qemu KERNEL IMAGE [ROUNDS]");
	for (int i = 0; i < rounds; i++) {
		cfg = (struct machine_config){argv[1], argv[2], MEM_MIB, 1, -1, NULL};
		samples_add(&boots, boot(cfg));
		cfg.tmpl = &tmpl;
		round_of_spawns(&cfg, &shell, &alone);
	}
	b = samples_percentile(&boots, 50);
	(void)printf("  boot %.0f ms", b);
	say("; from a shell: PONG", &shell.pong, b);
	say(", first command answered", &shell.command, b);
	say("; alone: PONG", &alone.pong, b);
	say(", first command answered", &alone.command, b);
	(void)printf("\n");
	return figure("tcg_spawn_vs_boot", &shell.command, b) == 0 &&
		       figure("tcg_pong_vs_boot", &shell.pong, b) == 0
		   ? 0
		   : 1;
}
