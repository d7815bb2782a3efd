/* SPDX-License-Identifier: MIT
 *
 * client_join.c - the name of a lease, and handles that join one: any process that may
 * attach can work on the VM that another has borrowed. Runs in clients; owns what a
 * handle has for that.
 *
 * A name is POOL:ID:SLOT:LEASE, where ID is the supervisor's generation, without
 * which a later pool of the same name could have a lease of the same numbers.
 *
 * What can go wrong on the way, and what the caller sees:
 *   it is no name, or of another pool    VMPOOL_ECONFIG
 *   of an earlier pool of this name      VMPOOL_ERESTARTED
 *   the lease ends, before or meanwhile  VMPOOL_ERELEASED
 *   too many have joined it              VMPOOL_ECAPACITY
 *   the worker is silent for 30 s        VMPOOL_ETIMEDOUT; it ends: VMPOOL_EVMDIED
 */
#include "shm/client.h"
#include "shm/joined.h"
#include "shm/slot.h"

#include <poll.h>
#include <string.h>

#define NAME_MAX_LEN 63u

/* --- names ------------------------------------------------------------------------------ */

struct name {
	char pool[NAME_MAX_LEN + 1];
	uint64_t id, generation;
	uint32_t slot;
};

/* All digits of a number, at most max; p moves behind them. */
static bool
take_number(const char **p, const char *digits, unsigned base, uint64_t max, uint64_t *out)
{
	const char *start = *p;

	for (*out = 0; **p != '\0'; (*p)++) {
		const char *d = strchr(digits, **p);
		uint64_t value = d != NULL ? (uint64_t)(d - digits) : 0;

		if (d == NULL)
			break;
		if (*out > (max - value) / base)
			return false;
		*out = *out * base + value;
	}
	/* One spelling per number. */
	return *p > start && (*start != '0' || *p == start + 1 || base == 16);
}

static bool
name_parse(struct name *name, const char *text)
{
	static const char digits[] = "0123456789abcdef", decimal[] = "0123456789";
	const char *p = strchr(text, ':');
	uint64_t slot;

	if (p == NULL || p == text || (size_t)(p - text) > NAME_MAX_LEN)
		return false;
	memcpy(name->pool, text, (size_t)(p - text));
	name->pool[p - text] = '\0';
	text = ++p;
	if (!take_number(&p, digits, 16, UINT64_MAX, &name->id) || p != text + 16 || *p++ != ':' ||
	    !take_number(&p, decimal, 10, SHM_SLOTS_MAX - 1, &slot) || *p++ != ':' ||
	    !take_number(&p, decimal, 10, SLOT_GENERATION_MAX, &name->generation))
		return false;
	name->slot = (uint32_t)slot;
	return *p == '\0';
}

/* The pool's own name, as it was attached to. */
static void
own_name(const struct vmpool *pool, char name[NAME_MAX_LEN + 1])
{
	client_printable(name, NAME_MAX_LEN + 1, pool->seg->head->name, NAME_MAX_LEN + 1);
}

int
vmpool_lease(const struct vmpool_vm *vm, char *buf, size_t len)
{
	char name[NAME_MAX_LEN + 1];
	int n, r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = client_enter(vm->pool, true);
	if (r < 0)
		return r;
	own_name(vm->pool, name);
	n = snprintf(buf, len, "%s:%016llx:%u:%llu", name, (unsigned long long)vm->pool->generation,
		     vm->lease.slot, (unsigned long long)slot_generation(vm->lease.word));
	return n < 0 || (size_t)n >= len
		   ? client_fail(vm->pool, -ENAMETOOLONG, "a lease's name needs %d bytes", n + 1)
		   : 0;
}

static int
bad_name(const struct vmpool *pool, const char *text)
{
	char shown[128];

	client_printable(shown, sizeof(shown), text, strlen(text));
	return client_fail(pool, VMPOOL_ECONFIG, "\"%s\" is not the name of a lease", shown);
}

int
vmpool_lease_pool(const char *text, char *buf, size_t len)
{
	struct name name;
	int n;

	if (!name_parse(&name, text))
		return bad_name(NULL, text);
	n = snprintf(buf, len, "%s", name.pool);
	return n < 0 || (size_t)n >= len
		   ? client_fail(NULL, -ENAMETOOLONG, "a pool's name needs %d bytes", n + 1)
		   : 0;
}

/* --- joining ------------------------------------------------------------------------------- */

/* The lease of this name, if it holds. */
static int
find_lease(const struct vmpool *pool, const char *text, struct lease *out)
{
	char own[NAME_MAX_LEN + 1];
	struct name name;
	uint64_t word;

	if (!name_parse(&name, text))
		return bad_name(pool, text);
	own_name(pool, own);
	if (strcmp(name.pool, own) != 0)
		return client_fail(pool, VMPOOL_ECONFIG,
				   "the lease is of pool \"%s\", not of pool \"%s\"", name.pool,
				   own);
	if (name.id != pool->generation)
		return client_fail(pool, VMPOOL_ERESTARTED,
				   "the lease is of an earlier pool \"%s\", which has ended", own);
	if (name.slot >= pool->seg->nslots)
		return bad_name(pool, text);
	/* Pairs with the release stores of the word, as in lease_check. */
	word = atomic_load_explicit(&pool->seg->slot[name.slot].word, memory_order_acquire);
	*out = (struct lease){.slot = name.slot, .word = word};
	if (slot_generation(word) != name.generation ||
	    (slot_state(word) != SLOT_IN_USE && slot_state(word) != SLOT_DEAD))
		return client_fail(pool, VMPOOL_ERELEASED, "the lease %s has ended", text);
	if (slot_state(word) == SLOT_DEAD)
		return client_fail(pool, VMPOOL_EVMDIED, "the VM in slot %u died", name.slot);
	return 0;
}

/* What the worker says of it. */
static int
hear_worker(const struct vmpool *pool, const struct lease *lease, int life)
{
	uint64_t deadline = client_deadline(CLIENT_SEND_MS);
	struct ctl_joined msg;
	int r;

	do {
		r = client_poll(life, POLLIN, deadline);
	} while (r == -EINTR);
	if (r == -ETIMEDOUT)
		return client_fail(pool, VMPOOL_ETIMEDOUT, "the VM in slot %u has not answered",
				   lease->slot);
	if (r == 0)
		r = ctl_recv(life, &msg, sizeof(msg), NULL, 0);
	if (r == -EPIPE && lease_check(pool->seg, lease) != -ESTALE)
		return client_fail(pool, VMPOOL_EVMDIED, "the VM in slot %u died", lease->slot);
	if (r == -EPIPE || (r == 0 && msg.error == -ESTALE))
		return client_fail(pool, VMPOOL_ERELEASED, "the lease has ended");
	if (r == 0 && msg.magic == CTL_MAGIC && msg.error == 0)
		return 0;
	if (r == 0 && msg.error == -EUSERS)
		return client_fail(pool, VMPOOL_ECAPACITY,
				   "too many processes use the VM in slot %u already", lease->slot);
	return client_fail(pool, r < 0 ? r : -EPROTO, "the VM in slot %u cannot be joined",
			   lease->slot);
}

static void
close_ends(struct join_ends *join)
{
	closep(&join->bells.req);
	closep(&join->bells.rsp);
	/* The worker takes it as our end. */
	closep(&join->life);
}

void
client_join_end(struct vmpool_vm *vm)
{
	if (vm->join.shm == NULL)
		return;
	close_ends(&vm->join);
	joined_unmap(vm->join.shm);
	vm->join.shm = vm->shm = NULL;
}

/* The channel of our own to the lease's VM. */
static int
join(struct vmpool *pool, const struct lease *lease, struct join_ends *out)
{
	const struct ctl_request req = {
	    .magic = CTL_MAGIC,
	    .kind = CTL_JOIN,
	    .slot = lease->slot,
	    .lease = slot_generation(lease->word),
	};
	_cleanup_(closep) int chan = -1;
	int fds[CTL_JOIN_FDS], r;

	r = client_ask(pool, &req, fds, CTL_JOIN_FDS);
	if (r < 0)
		return r;
	chan = fds[CTL_JOIN_CHAN];
	*out = (struct join_ends){
	    .bells = {.req = fds[CTL_JOIN_REQUEST], .rsp = fds[CTL_JOIN_RESPONSE]},
	    .life = fds[CTL_JOIN_LIFE],
	};
	r = hear_worker(pool, lease, out->life);
	if (r == 0 && (r = joined_map(&out->shm, chan)) < 0)
		r = client_fail(pool, r, "the VM's channel: %s", strerror(-r));
	if (r < 0)
		close_ends(out);
	return r;
}

int
vmpool_join(struct vmpool *pool, const char *text, struct vmpool_vm **out)
{
	struct join_ends ends;
	struct vmpool_vm *vm;
	struct lease lease;
	int r;

	*out = NULL;
	r = client_enter(pool, true);
	if (r == 0)
		r = find_lease(pool, text, &lease);
	if (r == 0)
		r = join(pool, &lease, &ends);
	if (r < 0)
		return r;
	vm = client_vm_get(pool);
	if (vm == NULL) {
		close_ends(&ends);
		joined_unmap(ends.shm);
		return client_fail(pool, -ENOMEM, "out of memory");
	}
	vm->lease = lease;
	vm->join = ends;
	vm->shm = ends.shm;
	vm->magic = CLIENT_VM_MAGIC;
	*out = vm;
	return 0;
}
