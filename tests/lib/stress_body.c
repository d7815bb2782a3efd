/* SPDX-License-Identifier: MIT
 *
 * stress_body.c - one client of a stress test. Runs in processes and threads of
 * tests; knows of the pool only what vmpool.h says.
 *
 * Errors are of two kinds. A VM may die, the supervisor may be replaced, a VM may
 * not come in time: that is what the test is about, and is counted. Everything
 * else is a failure of the pool.
 */
#include "tests/lib/stress_body.h"

#include <poll.h>
#include <signal.h>
#include <string.h>

#define CAT_MAX 40000u /* more than two windows */
#define OUTPUT_LEFT 3  /* pieces of endless output that are read */
#define ATTACH_MS 5000u

struct client {
	struct stress_party *party;
	struct stress_plan *plan;
	struct vmpool *pool;
	uint32_t dice;
	int result; /* of the last call; 0 or a library error */
	uint8_t bytes[CAT_MAX];
};

uint32_t
stress_dice(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

const char *
stress_call_name(uint32_t call)
{
	static const char *const names[] = {"nothing", "attach",  "acquire",
					    "use",     "release", "detach"};

	return call < ARRAY_SIZE(names) ? names[call] : "?";
}

static void
count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static bool printf_like(2, 3) complain(struct client *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(c->party->complaint, sizeof(c->party->complaint), fmt, ap);
	va_end(ap);
	atomic_store(&c->party->failed, 1);
	return false;
}

static void
enter(struct client *c, enum stress_call call, uint64_t may_take_ms)
{
	uint64_t ms = may_take_ms + c->plan->slack_ms;

	atomic_store_explicit(&c->party->present, call, memory_order_relaxed);
	atomic_store(&c->party->overdue_ns, now_ns() + ms * 1000000u);
}

static void
leave(struct client *c)
{
	atomic_store(&c->party->overdue_ns, 0);
}

/* Is this what may happen to anybody whose VM or supervisor is killed? */
static bool
is_fate(int r)
{
	return r == VMPOOL_EVMDIED || r == VMPOOL_ERESTARTED;
}

/* --- what is done with a VM ------------------------------------------------------------- */

static int
exec(struct client *c, struct vmpool_vm *vm, const char *const *argv, uint32_t timeout_ms,
     const void *input, size_t len, struct vmpool_result *r)
{
	const struct vmpool_exec_opts opts = {
	    .timeout_ms = timeout_ms != 0 ? timeout_ms : c->plan->command_ms,
	    .input = input,
	    .input_len = len,
	};

	return vmpool_exec(vm, argv, &opts, r);
}

/* Did a command that ran do what it must? Its result is freed. */
static bool
check(struct client *c, const char *what, struct vmpool_result *r, const void *out, size_t len)
{
	bool ok = r->exit_code == 0 && r->signal == 0 && !r->timed_out && r->out_len == len &&
		  memcmp(r->out, out, len) == 0;

	if (!ok)
		(void)complain(c, "%s: status %d, signal %d%s, %zu bytes instead of %zu", what,
			       r->exit_code, r->signal, r->timed_out ? ", timed out" : "",
			       r->out_len, len);
	return ok;
}

static bool
use_ping_worker(struct client *c, struct vmpool_vm *vm)
{
	c->result = vmpool_ping_worker(vm, c->plan->command_ms, NULL);
	return true;
}

static bool
use_ping(struct client *c, struct vmpool_vm *vm)
{
	c->result = vmpool_ping(vm, c->plan->command_ms, NULL);
	return true;
}

static bool
use_echo(struct client *c, struct vmpool_vm *vm)
{
	const char *argv[] = {"echo", "a", "stress", "test", NULL};
	struct vmpool_result r;
	bool ok;

	c->result = exec(c, vm, argv, 0, NULL, 0, &r);
	ok = c->result != 0 || check(c, "echo", &r, "a stress test\n", 14);
	vmpool_result_fini(&r);
	return ok;
}

static bool
use_cat(struct client *c, struct vmpool_vm *vm)
{
	const char *argv[] = {"cat", NULL};
	size_t len = stress_dice(&c->dice) % sizeof(c->bytes);
	struct vmpool_result r;
	bool ok;

	for (size_t i = 0; i < len; i++)
		c->bytes[i] = (uint8_t)(c->dice + i * 7 + (i >> 8));
	c->result = exec(c, vm, argv, 0, c->bytes, len, &r);
	ok = c->result != 0 || check(c, "cat", &r, c->bytes, len);
	vmpool_result_fini(&r);
	return ok;
}

static bool
use_kill(struct client *c, struct vmpool_vm *vm)
{
	const struct vmpool_exec_opts opts = {.timeout_ms = c->plan->command_ms};
	const char *argv[] = {"sleep", "1000", NULL};
	struct vmpool_event event = {.type = VMPOOL_STDOUT};
	struct vmpool_proc *proc;

	c->result = vmpool_spawn(vm, argv, &opts, &proc);
	if (c->result != 0)
		return true;
	c->result = vmpool_proc_kill(proc, SIGKILL);
	if (c->result == 0)
		c->result = vmpool_proc_next(proc, c->plan->command_ms, &event);
	vmpool_proc_free(proc);
	if (c->result == 0 && (event.type != VMPOOL_EXIT || event.signal != SIGKILL))
		return complain(c, "kill: event %d, signal %d", event.type, event.signal);
	return true;
}

static bool
use_timeout(struct client *c, struct vmpool_vm *vm)
{
	const char *argv[] = {"sleep", "1000", NULL};
	struct vmpool_result r;
	bool ok;

	c->result = exec(c, vm, argv, 5 + stress_dice(&c->dice) % 20, NULL, 0, &r);
	ok = c->result != 0 || r.timed_out || complain(c, "sleep ended with %d", r.exit_code);
	vmpool_result_fini(&r);
	return ok;
}

static bool
use_flood(struct client *c, struct vmpool_vm *vm)
{
	const struct vmpool_exec_opts opts = {.timeout_ms = c->plan->command_ms};
	const char *argv[] = {"yes", NULL};
	struct vmpool_event event;
	struct vmpool_proc *proc;

	c->result = vmpool_spawn(vm, argv, &opts, &proc);
	if (c->result != 0)
		return true;
	for (int i = 0; i < OUTPUT_LEFT && c->result == 0; i++) {
		c->result = vmpool_proc_next(proc, c->plan->command_ms, &event);
		if (c->result == 0 && event.type != VMPOOL_STDOUT) {
			vmpool_proc_free(proc);
			return complain(c, "yes ended by itself (event %d)", event.type);
		}
	}
	vmpool_proc_free(proc);
	return true;
}

static bool
use_mark(struct client *c, struct vmpool_vm *vm)
{
	const char *argv[] = {"mkdir", "/stress-mark", NULL};
	struct vmpool_result r;
	bool ok;

	c->result = exec(c, vm, argv, 0, NULL, 0, &r);
	ok = c->result != 0 || r.exit_code == 0 ||
	     complain(c, "slot %u: somebody has used this VM before", vmpool_slot(vm));
	vmpool_result_fini(&r);
	return ok;
}

static bool
use_die(struct client *c, struct vmpool_vm *vm)
{
	const char *argv[] = {"poweroff", "-f", NULL};
	struct vmpool_result r;

	c->result = exec(c, vm, argv, 0, NULL, 0, &r);
	vmpool_result_fini(&r);
	return true;
}

static bool (*const uses[STRESS_OPS])(struct client *c, struct vmpool_vm *vm) = {
    [STRESS_PING_WORKER] = use_ping_worker,
    [STRESS_PING] = use_ping,
    [STRESS_ECHO] = use_echo,
    [STRESS_CAT] = use_cat,
    [STRESS_KILL] = use_kill,
    [STRESS_TIMEOUT] = use_timeout,
    [STRESS_FLOOD] = use_flood,
    [STRESS_MARK] = use_mark,
    [STRESS_DIE] = use_die,
};

static bool
use(struct client *c, struct vmpool_vm *vm)
{
	uint32_t op = stress_dice(&c->dice) % STRESS_OPS;
	bool ok;

	if ((c->plan->ops & 1u << op) == 0)
		return true;
	count(&c->party->used);
	enter(c, CALL_USE, 2ull * c->plan->command_ms);
	ok = uses[op](c, vm);
	leave(c);
	if (ok && c->result != 0 && !is_fate(c->result))
		return complain(c, "use %u: %s (%s)", op, vmpool_strerror(c->result),
				vmpool_error(c->pool));
	return ok;
}

/* --- from attach to detach -------------------------------------------------------------- */

/* A pool that is being replaced is not there for a while: no event tells when. */
static bool
attach(struct client *c)
{
	struct vmpool_info info;
	int r;

	enter(c, CALL_ATTACH, ATTACH_MS);
	while ((r = vmpool_attach(&c->pool, NULL)) != 0 && atomic_load(&c->plan->stop) == 0) {
		if (r != VMPOOL_ENOPOOL && r != VMPOOL_EDRAINING && r != VMPOOL_ERESTARTED)
			return complain(c, "attach: %s (%s)", vmpool_strerror(r),
					vmpool_error(NULL));
		(void)poll(NULL, 0, 5);
	}
	leave(c);
	if (r != 0)
		return true;
	r = vmpool_info(c->pool, &info);
	if (r != 0)
		return complain(c, "info: %s", vmpool_strerror(r));
	if (atomic_load(&c->party->generation) != info.generation) {
		atomic_store(&c->party->acquired, 0);
		atomic_store(&c->party->ended, 0);
		atomic_store(&c->party->generation, info.generation);
	}
	return true;
}

static void
detach(struct client *c)
{
	enter(c, CALL_DETACH, ATTACH_MS);
	vmpool_detach(c->pool);
	c->pool = NULL;
	leave(c);
}

/* An acquire that fails. */
static bool
refused(struct client *c, int r)
{
	switch (r) {
	case VMPOOL_ERESTARTED:
	case VMPOOL_EDRAINING:
		count(&c->party->restarted);
		detach(c);
		return true;
	case VMPOOL_ESTART:
		/* The supervisor pauses as well, at least so long. */
		(void)poll(NULL, 0, 20);
		count(&c->party->refused);
		return true;
	case VMPOOL_ECAPACITY: count(&c->party->refused); return true;
	default: return complain(c, "acquire: %s (%s)", vmpool_strerror(r), vmpool_error(c->pool));
	}
}

static void
one_done(struct stress_plan *plan)
{
	uint64_t left = atomic_load_explicit(&plan->left, memory_order_relaxed);

	while (left > 0 && !atomic_compare_exchange_weak(&plan->left, &left, left - 1))
		continue;
}

static bool
give_back(struct client *c, struct vmpool_vm *vm)
{
	int r;

	enter(c, CALL_RELEASE, 5000);
	r = vmpool_release(vm);
	leave(c);
	count(&c->party->cycles);
	one_done(c->plan);
	if (r == 0 || r == VMPOOL_EVMDIED)
		count(&c->party->ended);
	if (r == VMPOOL_EVMDIED)
		count(&c->party->died);
	return r == 0 || is_fate(r) ||
	       complain(c, "release: %s (%s)", vmpool_strerror(r), vmpool_error(c->pool));
}

static bool
one_lease(struct client *c)
{
	static const uint32_t divisor[] = {1, 1, 1, 20, 400};
	struct vmpool_acquire_opts opts;
	struct vmpool_vm *vm;
	bool ok = true;
	int r;

	opts.timeout_ms =
	    c->plan->patience_ms / divisor[stress_dice(&c->dice) % ARRAY_SIZE(divisor)];
	enter(c, CALL_ACQUIRE, (uint64_t)opts.timeout_ms);
	r = vmpool_acquire(c->pool, &opts, &vm);
	leave(c);
	if (r != 0)
		return refused(c, r);
	count(&c->party->acquired);
	c->result = 0;
	if (stress_dice(&c->dice) % 1000 < c->plan->touch)
		ok = use(c, vm);
	return give_back(c, vm) && ok;
}

static bool
more(const struct stress_plan *plan)
{
	return atomic_load_explicit(&plan->stop, memory_order_relaxed) == 0 &&
	       atomic_load_explicit(&plan->left, memory_order_relaxed) > 0;
}

bool
stress_body(struct stress_party *party, struct stress_plan *plan, uint32_t seed)
{
	struct client *c = calloc(1, sizeof(*c));
	bool ok = c != NULL;

	if (!ok)
		return false;
	c->party = party;
	c->plan = plan;
	c->dice = seed | 1;
	while (ok && more(plan)) {
		if (c->pool == NULL)
			ok = attach(c);
		if (c->pool == NULL)
			continue;
		ok = ok && one_lease(c);
		/* Attaching is part of what is tested, but not most of it. */
		if (ok && c->pool != NULL && stress_dice(&c->dice) % 500 == 0)
			detach(c);
	}
	if (c->pool != NULL)
		detach(c);
	free(c);
	return ok;
}
