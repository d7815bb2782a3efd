/* SPDX-License-Identifier: MIT
 *
 * test_client_join.c - leases that several handles use (shm/client_join.c): names,
 * joining, leaving, and every way in which it ends.
 */
#include "tests/lib/clienttest.h"

#include "shm/client.h"
#include "shm/slot.h"

#include <poll.h>
#include <string.h>
#include <sys/wait.h>

/* A second attachment, as another process would have, and its part in f->vm's lease. */
struct guest {
	struct vmpool *pool;
	struct vmpool_vm *vm;
	char lease[VMPOOL_LEASE_SIZE];
};

static struct guest
guest_open(struct fixture *f)
{
	struct guest g;

	assert_int_equal(vmpool_lease(f->vm, g.lease, sizeof(g.lease)), 0);
	assert_int_equal(vmpool_attach(&g.pool, NULL), 0);
	assert_int_equal(vmpool_join(g.pool, g.lease, &g.vm), 0);
	return g;
}

static void
assert_echo(struct vmpool_vm *vm, const char *word)
{
	struct vmpool_result r;

	assert_int_equal(vmpool_exec(vm, ARGV("echo", word), NULL, &r), 0);
	assert_memory_equal(r.out, word, strlen(word));
	vmpool_result_fini(&r);
}

/* --- names ------------------------------------------------------------------------------ */

static void
a_name_has_four_parts(void **state)
{
	struct fixture *f = *state;
	char text[VMPOOL_LEASE_SIZE], want[VMPOOL_LEASE_SIZE], pool[64];
	struct vmpool_info info;

	assert_int_equal(vmpool_info(f->pool, &info), 0);
	(void)snprintf(want, sizeof(want), "default:%016llx:%u:1",
		       (unsigned long long)info.generation, vmpool_slot(f->vm));
	assert_int_equal(vmpool_lease(f->vm, text, sizeof(text)), 0);
	assert_string_equal(text, want);
	assert_int_equal(vmpool_lease(f->vm, text, strlen(want)), -ENAMETOOLONG);
	assert_int_equal(vmpool_lease_pool(want, pool, sizeof(pool)), 0);
	assert_string_equal(pool, "default");
	assert_int_equal(vmpool_lease_pool(want, pool, 7), -ENAMETOOLONG);
}

static void
what_is_no_name(void **state)
{
	static const char *const texts[] = {
	    "",
	    "default",
	    ":0123456789abcdef:0:1",
	    "default:0123456789abcdef:0",
	    "default:0123456789abcdef:0:",
	    "default:0123456789abcdef::1",
	    "default:0123456789abcdef:0:1:",
	    "default:0123456789abcdef:0:1 ",
	    "default:0123456789abcdef: 0:1",
	    "default:0123456789abcdef:+0:1",
	    "default:0123456789abcdef:00:1",
	    "default:0123456789abcdef:0:01",
	    "default:0123456789ABCDEF:0:1",
	    "default:123456789abcdef:0:1",
	    "default:00123456789abcdef:0:1",
	    "default:0123456789abcdef:4096:1",
	    "default:0123456789abcdef:18446744073709551616:1",
	    "default:0123456789abcdef:0:1099511627776",
	    "default:0123456789abcdef:0:18446744073709551617",
	    "default\n:0123456789abcdef:-1:1",
	    "a23456789a123456789a123456789a123456789a123456789a123456789a1234:0123456789abcdef:0:1",
	};
	struct fixture *f = *state;
	struct vmpool_vm *vm;
	char pool[64];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (vmpool_lease_pool(texts[i], pool, sizeof(pool)) != VMPOOL_ECONFIG ||
		    vmpool_join(f->pool, texts[i], &vm) != VMPOOL_ECONFIG)
			fail_msg("a name: %s", texts[i]);
		assert_null(vm);
		assert_non_null(strstr(vmpool_error(f->pool), "is not the name of a lease"));
		assert_null(strchr(vmpool_error(f->pool), '\n'));
	}
}

static void
names_of_others(void **state)
{
	struct fixture *f = *state;
	struct vmpool_info info;
	struct vmpool_vm *vm;
	char text[VMPOOL_LEASE_SIZE];
	const struct {
		const char *pool;
		uint64_t id;
		unsigned slot, generation;
		int error;
		const char *words;
	} names[] = {
	    {"other", 0, 0, 1, VMPOOL_ECONFIG, "of pool \"other\", not of pool \"default\""},
	    {"default", 1, 0, 1, VMPOOL_ERESTARTED, "an earlier pool"},
	    {"default", 0, FAKE_SLOTS, 1, VMPOOL_ECONFIG, "is not the name"},
	    {"default", 0, vmpool_slot(f->vm), 2, VMPOOL_ERELEASED, "has ended"},
	    {"default", 0, vmpool_slot(f->vm), 0, VMPOOL_ERELEASED, "has ended"},
	    {"default", 0, FAKE_SLOTS - 1, 0, VMPOOL_ERELEASED, "has ended"},
	};

	assert_int_equal(vmpool_info(f->pool, &info), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(text, sizeof(text), "%s:%016llx:%u:%u", names[i].pool,
			       (unsigned long long)(info.generation ^ names[i].id), names[i].slot,
			       names[i].generation);
		assert_int_equal(vmpool_join(f->pool, text, &vm), names[i].error);
		assert_non_null(strstr(vmpool_error(f->pool), names[i].words));
	}
}

/* --- using it ------------------------------------------------------------------------------ */

static void
both_use_the_vm(void **state)
{
	struct fixture *f = *state;
	struct guest g = guest_open(f);
	char text[VMPOOL_LEASE_SIZE];

	assert_int_equal(vmpool_slot(g.vm), vmpool_slot(f->vm));
	assert_int_equal(vmpool_lease(g.vm, text, sizeof(text)), 0);
	assert_string_equal(text, g.lease);
	for (int i = 0; i < 3; i++) {
		assert_echo(f->vm, "holder");
		assert_echo(g.vm, "guest");
		assert_int_equal(vmpool_ping(g.vm, FOREVER_MS, NULL), 0);
		assert_int_equal(vmpool_ping_worker(g.vm, FOREVER_MS, NULL), 0);
	}
	assert_int_equal(stat_value(f->pool, "in_use_count"), 1);
	/* Leaving is no release. */
	assert_int_equal(vmpool_release(g.vm), 0);
	assert_int_equal(stat_value(f->pool, "in_use_count"), 1);
	assert_echo(f->vm, "alone");
	assert_int_equal(vmpool_join(g.pool, g.lease, &g.vm), 0);
	vmpool_detach(g.pool);
	assert_echo(f->vm, "alone");
	assert_int_equal(stat_value(f->pool, "in_use_count"), 1);
}

/* The holder itself never says a word to the VM, which is used all the same. */
static void
a_joined_vm_is_not_handed_on(void **state)
{
	struct fixture *f = *state;
	struct guest g = guest_open(f);
	unsigned slot = vmpool_slot(f->vm);

	assert_int_equal(vmpool_release(g.vm), 0);
	vmpool_detach(g.pool);
	assert_int_equal(vmpool_release(f->vm), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(vmpool_acquire(f->pool, NULL, &f->vm), 0);
		assert_int_not_equal(vmpool_slot(f->vm), slot);
		f->vm = i == 0 ? NULL : f->vm;
	}
}

static void
the_descriptor_is_polled(void **state)
{
	struct fixture *f = *state;
	struct guest g = guest_open(f);
	struct vmpool_proc *proc;
	struct vmpool_event event;
	struct pollfd p = {.events = POLLIN};
	size_t got = 0;
	int r;

	assert_int_equal(vmpool_spawn(g.vm, ARGV("flood", "200000"), NULL, &proc), 0);
	p.fd = vmpool_proc_fd(proc);
	assert_true(p.fd >= 0);
	do {
		assert_int_equal(poll(&p, 1, FOREVER_MS), 1);
		while ((r = vmpool_proc_next(proc, 0, &event)) == 0 && event.type == VMPOOL_STDOUT)
			got += event.len;
	} while (r == -EAGAIN);
	assert_int_equal(r, 0);
	assert_int_equal(event.type, VMPOOL_EXIT);
	assert_int_equal(got, 200000);
	vmpool_proc_free(proc);
	vmpool_detach(g.pool);
}

/* --- how it ends ------------------------------------------------------------------------------ */

enum ending {
	RELEASED,
	VM_DIES,
	WORKER_ENDS, /* and the supervisor has not noticed yet */
	SUPERVISOR_DIES,
	CUT_OFF,
	ENDINGS,
};

static const struct {
	int error;
	const char *words;
} endings[ENDINGS] = {
    [RELEASED] = {VMPOOL_ERELEASED, "the lease has ended"},
    [VM_DIES] = {VMPOOL_EVMDIED, "died"},
    [WORKER_ENDS] = {VMPOOL_EVMDIED, "died"},
    [SUPERVISOR_DIES] = {VMPOOL_ERESTARTED, "supervisor"},
    [CUT_OFF] = {VMPOOL_EPROTOCOL, "cut off"},
};

static void
end(struct fixture *f, enum ending how)
{
	switch (how) {
	case RELEASED:
		assert_int_equal(vmpool_release(f->vm), 0);
		f->vm = NULL;
		break;
	case VM_DIES: fakepool_kill_vm(&f->fp, vmpool_slot(f->vm)); break;
	case WORKER_ENDS: fakepool_sever(&f->fp, vmpool_slot(f->vm)); break;
	case SUPERVISOR_DIES: fakepool_kill_supervisor(&f->fp); break;
	default: fakepool_cut_off(&f->fp, 0); break;
	}
}

static void
every_call_says_how_it_ended(void **state)
{
	void *inner = *state;

	for (int how = 0; how < ENDINGS; how++) {
		struct fixture *f = inner;
		struct guest g = guest_open(f);
		struct vmpool_result r;
		struct vmpool_vm *vm;

		end(f, how);
		assert_int_equal(vmpool_exec(g.vm, ARGV("echo"), NULL, &r), endings[how].error);
		vmpool_result_fini(&r);
		assert_non_null(strstr(vmpool_error(g.pool), endings[how].words));
		assert_int_equal(vmpool_ping(g.vm, FOREVER_MS, NULL), endings[how].error);
		if (how == RELEASED || how == VM_DIES || how == SUPERVISOR_DIES)
			assert_int_not_equal(vmpool_join(g.pool, g.lease, &vm), 0);
		assert_int_equal(vmpool_release(g.vm), 0);
		vmpool_detach(g.pool);
		assert_int_equal(teardown(&inner), 0);
		assert_int_equal(setup_vm(&inner), 0);
	}
	*state = inner;
}

struct sleeper {
	pthread_t thread;
	struct vmpool_vm *vm;
	atomic_bool ready;
	bool polls;
	int r;
};

/* Waits for a command that never ends; by its descriptor, or in the call. */
static void *
sleep_on(void *arg)
{
	struct sleeper *s = arg;
	struct vmpool_event event;
	struct vmpool_proc *proc;
	struct pollfd p = {.events = POLLIN};

	s->r = vmpool_spawn(s->vm, ARGV("sleep"), NULL, &proc);
	if (s->r != 0)
		return NULL;
	p.fd = s->polls ? vmpool_proc_fd(proc) : -1;
	atomic_store(&s->ready, true);
	do {
		if (s->polls && poll(&p, 1, FOREVER_MS) != 1)
			break;
		s->r = vmpool_proc_next(proc, s->polls ? 0 : FOREVER_MS, &event);
	} while (s->polls && s->r == -EAGAIN);
	vmpool_proc_free(proc);
	return NULL;
}

/* In the test build a sleep has no end of its own: a lost wake-up shows. */
static void
every_sleeper_wakes(void **state)
{
	void *inner = *state;

	/* Those that poll by themselves: others would notice for them. */
	for (int n = 0; n < 2 * ENDINGS; n++) {
		enum ending how = (enum ending)(n / 2);
		struct fixture *f = inner;
		struct guest g = guest_open(f);
		struct sleeper s[] = {{.vm = g.vm, .polls = n % 2}, {.vm = g.vm, .polls = n % 2}};

		for (unsigned i = 0; i < ARRAY_SIZE(s); i++)
			AZ(pthread_create(&s[i].thread, NULL, sleep_on, &s[i]));
		for (unsigned i = 0; i < ARRAY_SIZE(s); i++)
			while (!atomic_load(&s[i].ready))
				(void)sched_yield();
		if (how != WORKER_ENDS)
			end(f, how);
		else
			/* What the kernel does then, to the word and to the socket. */
			fakepool_kill_vm(&f->fp, vmpool_slot(f->vm));
		for (unsigned i = 0; i < ARRAY_SIZE(s); i++) {
			AZ(pthread_join(s[i].thread, NULL));
			assert_int_equal(s[i].r, endings[how].error);
		}
		assert_int_equal(vmpool_release(g.vm), 0);
		vmpool_detach(g.pool);
		assert_int_equal(teardown(&inner), 0);
		assert_int_equal(setup_vm(&inner), 0);
	}
	*state = inner;
}

/* What the worker says to who joins. */
static void
joining_fails(void **state)
{
	static const struct {
		int said, error;
	} answers[] = {{-EUSERS, VMPOOL_ECAPACITY},
		       {-ESTALE, VMPOOL_ERELEASED},
		       {-ENOMEM, -EPROTO},
		       {1, VMPOOL_EVMDIED}};
	struct fixture *f = *state;
	struct vmpool_vm *vm;
	char lease[VMPOOL_LEASE_SIZE];

	assert_int_equal(vmpool_lease(f->vm, lease, sizeof(lease)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		atomic_store(&f->fp.join_error, answers[i].said);
		assert_int_equal(vmpool_join(f->pool, lease, &vm), answers[i].error);
	}
	atomic_store(&f->fp.join_error, 0);
	/* Its own lease, and the same handle goes on to serve. */
	assert_int_equal(vmpool_join(f->pool, lease, &vm), 0);
	assert_echo(vm, "self");
	assert_int_equal(vmpool_release(vm), 0);
}

/* The lease ends between the look at it and the request. */
static void
the_supervisor_refuses(void **state)
{
	struct fixture *f = *state;
	struct guest g = guest_open(f);
	struct ctl_request req = {
	    .magic = CTL_MAGIC, .kind = CTL_JOIN, .slot = vmpool_slot(f->vm), .lease = 2};
	int fds[CTL_JOIN_FDS];

	assert_int_equal(client_ask(g.pool, &req, fds, CTL_JOIN_FDS), VMPOOL_ERELEASED);
	assert_non_null(strstr(vmpool_error(g.pool), "has ended"));
	/* The connection is as good as before. */
	assert_int_equal(vmpool_release(g.vm), 0);
	assert_int_equal(vmpool_join(g.pool, g.lease, &g.vm), 0);
	vmpool_detach(g.pool);
}

static int
child_of(struct guest *g)
{
	struct vmpool_vm *vm;

	if (vmpool_join(g->pool, g->lease, &vm) != VMPOOL_EFORKED ||
	    vmpool_lease(g->vm, g->lease, sizeof(g->lease)) != VMPOOL_EFORKED ||
	    vmpool_release(g->vm) != VMPOOL_EFORKED)
		return 1;
	vmpool_detach(g->pool);
	return vmpool_attach(&g->pool, NULL) == 0 && vmpool_join(g->pool, g->lease, &vm) == 0 ? 0
											      : 2;
}

static void
forked(void **state)
{
	struct fixture *f = *state;
	struct guest g = guest_open(f);
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(child_of(&g));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_echo(g.vm, "parent");
	vmpool_detach(g.pool);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_vm, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_name_has_four_parts),
	    TEST(what_is_no_name),
	    TEST(names_of_others),
	    TEST(both_use_the_vm),
	    TEST(a_joined_vm_is_not_handed_on),
	    TEST(the_descriptor_is_polled),
	    TEST(every_call_says_how_it_ended),
	    TEST(every_sleeper_wakes),
	    TEST(joining_fails),
	    TEST(the_supervisor_refuses),
	    TEST(forked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
