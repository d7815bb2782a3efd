/* SPDX-License-Identifier: MIT
 *
 * client.c - libvmpool and a worker that writes what the input says into the channel, and
 * scribbles on the rest of it, whenever the library would sleep. Every call returns;
 * what it hands out is within its bounds; the requests that a worker gets are legal.
 */
#include "shm/client.h"
#include "shm/lifeline.h"
#include "shm/slot.h"
#include "tests/lib/fuzz.h"

#include <string.h>
#include <sys/eventfd.h>

#define SLOT 1u
#define PROCS 4u
#define NEVER_MS 1000000 /* the wait is ours */

int __wrap_lifeline_wait_worker(const struct seg *seg, const _Atomic uint32_t *word,
				uint32_t expected, _Atomic uint32_t *worker, uint64_t deadline_ns);

static struct fuzz input;
static struct vmpool pool;
static struct vmpool_vm *vm;
static struct vmpool_proc *procs[PROCS];
static uint32_t lifeline; /* what the word of a supervisor that lives looks like */

static struct {
	struct ring req, rsp;
	bool honest;
} worker;

/* --- the worker ---------------------------------------------------------------------------- */

static uint32_t
right_length(uint8_t type)
{
	static const uint32_t right[256] = {
	    [PROTO_CREDIT] = 4,
	    [PROTO_EXIT] = sizeof(struct proto_exit),
	    [PROTO_ERROR] = sizeof(struct proto_error) + 9,
	    [PROTO_FILE_DONE] = sizeof(struct proto_file_done),
	    [PROTO_VMSTATS] = sizeof(struct proto_vmstats),
	    [PROTO_PONG] = 8,
	    [RING_WORKER_PONG] = 8,
	};

	switch (fuzz_below(&input, 8)) {
	case 1: return fuzz_below(&input, RING_PAYLOAD_MAX + 1);
	case 2: return fuzz_below(&input, 256);
	default: return right[type] != 0 ? right[type] : 100;
	}
}

static void
answer(void)
{
	static const uint8_t types[] = {
	    PROTO_STDOUT, PROTO_STDERR,	   PROTO_CREDIT,  PROTO_EXIT,	    PROTO_ERROR,
	    PROTO_PONG,	  PROTO_FILE_DONE, PROTO_VMSTATS, RING_WORKER_PONG, PROTO_READY};
	static uint8_t payload[RING_PAYLOAD_MAX];
	uint8_t type = types[fuzz_below(&input, ARRAY_SIZE(types))];
	unsigned odd = fuzz_below(&input, 16);
	struct ring_rec rec = {
	    .type = odd == 1 ? (uint8_t)fuzz_below(&input, 256) : type,
	    .flags = odd == 2,
	    .zero = odd == 3,
	    .lease = odd == 4 ? fuzz_below(&input, 256) : (uint32_t)slot_generation(vm->lease.word),
	    .length = right_length(type),
	};

	if (odd == 5)
		rec.stream = (uint32_t)fuzz_value(&input);
	else if (type != PROTO_PONG && type != RING_WORKER_PONG && vm->conn != NULL)
		rec.stream = vm->conn->next_stream - odd % PROCS;
	fuzz_fill(&input, payload, rec.length);
	if (rec.stream == 0 && odd > 5 && vm->conn != NULL)
		memcpy(payload, &vm->conn->nonce, sizeof(vm->conn->nonce));
	if (ring_write(&worker.rsp, &rec, payload) == -EPROTO)
		ring_init_producer(&worker.rsp, worker.rsp.pos, worker.rsp.data);
}

static void
hear(void)
{
	static uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	int r;

	if (!worker.honest)
		return;
	while ((r = ring_read(&worker.req, &rec, payload)) == 1) {
		const struct proto_hdr hdr = {.length = rec.length,
					      .type = rec.type,
					      .flags = rec.flags,
					      .zero = rec.zero,
					      .stream = rec.stream};

		assert(rec.type == RING_WORKER_PING || proto_check(&hdr, false));
	}
	AZ(r);
}

/* What happens to the slot and to the supervisor. */
static void
fate(void)
{
	static const enum slot_state states[] = {SLOT_DEAD, SLOT_IDLE, SLOT_RESETTING, SLOT_IN_USE};
	struct shm_slot *slot = &pool.seg->slot[SLOT];

	switch (fuzz_below(&input, 8)) {
	case 1:
		atomic_store(&slot->word,
			     slot_word(states[fuzz_below(&input, ARRAY_SIZE(states))], 3,
				       slot_generation(vm->lease.word) + fuzz_below(&input, 2)));
		break;
	case 2: atomic_store(lifeline_word(pool.seg), (uint32_t)fuzz_value(&input)); break;
	case 3: atomic_store(&slot->life, FUTEX_OWNER_DIED); break;
	case 4: atomic_store(&vm->shm->worker_asleep, fuzz_below(&input, 4)); break;
	default: break;
	}
}

static void
scribble(void)
{
	uint8_t *at = (uint8_t *)vm->shm;

	if (fuzz_below(&input, 2) == 0)
		fuzz_mutate(&input, at, SHM_PAGE);
	else
		fuzz_mutate(&input, at + SHM_PAGE, sizeof(*vm->shm) - SHM_PAGE);
	worker.honest = false;
}

static void
work(void)
{
	for (unsigned i = fuzz_below(&input, 4); i > 0; i--) {
		switch (fuzz_below(&input, 16)) {
		case 0: fate(); break;
		case 1: scribble(); break;
		case 2: hear(); break;
		default: answer();
		}
	}
}

/* In place of the sleep: the worker's turn, as long as there is input. */
int
__wrap_lifeline_wait_worker(const struct seg *seg, const _Atomic uint32_t *word, uint32_t expected,
			    _Atomic uint32_t *life, uint64_t deadline_ns)
{
	(void)word;
	(void)expected;
	(void)life;
	(void)deadline_ns;
	if (!lifeline_alive(seg))
		return -ENOTCONN;
	if (fuzz_left(&input) == 0)
		return -ETIMEDOUT;
	if (fuzz_below(&input, 64) == 1)
		return -EINTR;
	work();
	return 0;
}

/* --- the caller ------------------------------------------------------------------------------ */

/* All of these bytes can be read. */
static void
look_at(const void *p, size_t len)
{
	static uint8_t buf[RING_PAYLOAD_MAX];

	for (size_t n; len > 0; p = (const uint8_t *)p + n, len -= n) {
		n = MIN(len, sizeof(buf));
		memcpy(buf, p, n);
	}
}

static void
start(struct vmpool_proc **proc)
{
	static const char *const argv[] = {"prog", "argument", NULL};
	const struct vmpool_exec_opts opts = {.want_stdin = fuzz_below(&input, 2) != 0,
					      .timeout_ms = fuzz_below(&input, 256)};

	if (*proc == NULL)
		(void)!vmpool_spawn(vm, argv, &opts, proc);
}

static void
use(struct vmpool_proc **proc)
{
	struct vmpool_event ev;

	if (*proc == NULL)
		return;
	switch (fuzz_below(&input, 8)) {
	case 0:
		vmpool_proc_free(*proc);
		*proc = NULL;
		break;
	case 1: (void)!vmpool_proc_write(*proc, "input", 5, 0); break;
	case 2: (void)!vmpool_proc_close_stdin(*proc); break;
	case 3: (void)!vmpool_proc_kill(*proc, 15); break;
	case 4: (void)!vmpool_proc_resize(*proc, 24, 80); break;
	default:
		if (vmpool_proc_next(*proc, NEVER_MS, &ev) == 0 &&
		    (ev.type == VMPOOL_STDOUT || ev.type == VMPOOL_STDERR))
			look_at(ev.data, ev.len);
	}
}

static void
run(void)
{
	static const char *const argv[] = {"prog", NULL};
	const struct vmpool_exec_opts opts = {.input = "some input",
					      .input_len = fuzz_below(&input, 11),
					      .output_limit = fuzz_below(&input, 1u << 15)};
	struct vmpool_result result;

	if (vmpool_exec(vm, argv, &opts, &result) == 0) {
		look_at(result.out, result.out_len + 1);
		look_at(result.err, result.err_len + 1);
	}
	vmpool_result_fini(&result);
}

static int
see_entry(void *arg, const struct vmpool_dirent *entry)
{
	(void)arg;
	assert(strlen(entry->name) <= PROTO_NAME_MAX && strchr(entry->name, '/') == NULL);
	return 0;
}

static void
use_files(void)
{
	struct vmpool_file_stat st;
	char *target;
	void *buf;
	size_t len;

	switch (fuzz_below(&input, 8)) {
	case 0: (void)!vmpool_stat(vm, "/file", NULL, &st); break;
	case 1: (void)!vmpool_write_file(vm, "/file", NULL, "bytes", 5); break;
	case 2:
		(void)!vmpool_readlink(vm, "/link", NULL, &target);
		free(target);
		break;
	case 3:
	case 4:
	case 5: (void)!vmpool_list_dir_each(vm, "/", NULL, see_entry, NULL); break;
	default:
		if (vmpool_read_file(vm, "/file", NULL, &buf, &len) == 0)
			look_at(buf, len);
		free(buf);
	}
}

static void
call(void)
{
	struct vmpool_proc **proc = &procs[fuzz_below(&input, PROCS)];

	switch (fuzz_below(&input, 8)) {
	case 0: start(proc); break;
	case 1: run(); break;
	case 2: use_files(); break;
	case 3: (void)!vmpool_ping(vm, NEVER_MS, NULL); break;
	case 4: work(); break;
	default: use(proc);
	}
}

/* --- all of it ---------------------------------------------------------------------------------
 */

static void
make_world(void)
{
	static const uint32_t same_process = 1;
	static struct bells bells[SLOT + 1];
	const struct seg_params params = {
	    .name = "fuzz", .accel = "null", .why = "", .nslots = SLOT + 1};
	const struct lease lease = {.slot = SLOT, .word = slot_word(SLOT_IN_USE, 3, 7)};
	char err[256];

	AZ(seg_create(&pool.seg, &params, err, sizeof(err)));
	AZ(lifeline_hold(pool.seg));
	lifeline = atomic_load(lifeline_word(pool.seg));
	pool.magic = CLIENT_POOL_MAGIC;
	pool.sock = pool.kick_fd = -1;
	pool.same_process = &same_process;
	pool.bells = bells;
	bells[SLOT].req = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	bells[SLOT].rsp = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	AZ(pthread_mutex_init(&pool.lock, NULL));
	AZ(pthread_mutex_init(&pool.sock_lock, NULL));
	vm = client_vm(&pool, &lease);
	AN(vm);
}

/* A channel of the lease's holder, or of one who has joined. */
static void
begin(void)
{
	static struct shm_chan joined;

	if (vm == NULL)
		make_world();
	vm->join.shm = fuzz_below(&input, 4) == 1 ? &joined : NULL;
	vm->join.bells = pool.bells[SLOT];
	vm->shm = vm->join.shm != NULL ? &joined : &pool.seg->chan[SLOT];
	memset(vm->shm, 0, sizeof(*vm->shm));
	atomic_store(&pool.seg->slot[SLOT].word, vm->lease.word);
	atomic_store(&pool.seg->slot[SLOT].life, 1);
	atomic_store(lifeline_word(pool.seg), lifeline);
	ring_init_consumer(&worker.req, &vm->shm->req, vm->shm->req_data);
	ring_init_producer(&worker.rsp, &vm->shm->rsp, vm->shm->rsp_data);
	worker.honest = true;
	memset(procs, 0, sizeof(procs));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = fuzz_input(data, size);
	begin();
	while (fuzz_left(&input) > 0)
		call();
	for (unsigned i = 0; i < PROCS; i++)
		vmpool_proc_free(procs[i]);
	conn_free(vm);
	return 0;
}
