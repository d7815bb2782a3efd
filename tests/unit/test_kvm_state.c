/* SPDX-License-Identifier: MIT
 *
 * test_kvm_state.c - the encoding of a machine's state: what is written comes
 * back, what is cut, changed or made for another machine is refused, and what is
 * accepted keeps the promises that the devices rely on.
 */
#include "kvm/vm_state.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MEM_SIZE (64ull << 20)
#define STATUS_RUNNING 0xfu   /* acknowledged, driver, features agreed, driver running */
#define FEATURES (1ull << 32) /* VERSION_1 */

static const struct msr_list msrs = {.n = 2, .index = {0x277, 0x4b564d01}};
static struct vm_identity id;
static struct vm_state state, got;
static struct blob blob;
static char err[256];

/* A state in which every byte differs from its neighbours, where it may. */
static int
setup(void **unused)
{
	uint8_t *p = (uint8_t *)&state;

	(void)unused;
	for (size_t i = 0; i < sizeof(state); i++)
		p[i] = (uint8_t)(i * 7 + i / 256);
	id = (struct vm_identity){.mem_size = MEM_SIZE,
				  .vcpus = 2,
				  .tsc_khz = 2000000,
				  .layout = vm_state_layout(),
				  .cpuid = 0x1234567890abcdefu};
	state.chip.ioapic.base_address = 0xfec00000;
	state.dev.serial =
	    (struct serial_state){.ier = 2, .lcr = 3, .mcr = 0xb, .dll = 1, .fifo = true};
	state.dev.log_total = 100000;
	state.dev.log_len = sizeof(state.dev.log);
	state.dev.virtio =
	    (struct virtio_state){.driver_features = FEATURES, .status = STATUS_RUNNING, .isr = 1};
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		state.dev.virtio.q[i] = (struct virtq){.desc = 0x10000 * (i + 1),
						       .avail = 0x10000 * (i + 1) + 0x2000,
						       .used = 0x10000 * (i + 1) + 0x4000,
						       .num = 4,
						       .ready = true,
						       .last_avail = (uint16_t)(0xfff0 + i),
						       .used_idx = (uint16_t)(7 * i),
						       .signalled = (uint16_t)(5 * i)};
	state.dev.broken = false;
	state.dev.vcon = (struct vcon_state){
	    .guest_open = true, .tx = {.active = true, .more = true, .head = 3, .off = 9}};
	state.warm = (struct vm_warm){.n = 2, .page = {5 << 1, 6 << 1 | 1}};
	for (unsigned i = 0; i < id.vcpus; i++) {
		state.vcpu[i].msr_n = 2;
		state.vcpu[i].msr[0] = (struct kvm_msr_entry){.index = 0x277, .data = i};
		state.vcpu[i].msr[1] = (struct kvm_msr_entry){.index = 0x4b564d01, .data = 77};
	}
	blob = (struct blob){0};
	AZ(vm_state_encode(&state, &id, &blob));
	return 0;
}

static int
teardown(void **unused)
{
	(void)unused;
	blob_fini(&blob);
	return 0;
}

static int
decode(const void *bytes, size_t len)
{
	err[0] = '\0';
	return vm_state_decode(&got, &id, &msrs, bytes, len, err, sizeof(err));
}

static void
comes_back(void **unused)
{
	(void)unused;
	memset(&got, 0xa5, sizeof(got));
	assert_int_equal(decode(blob.data, blob.len), 0);
	assert_memory_equal(&got.chip.ioapic, &state.chip.ioapic, sizeof(got.chip.ioapic));
	assert_memory_equal(got.chip.pic, state.chip.pic, sizeof(got.chip.pic));
	assert_int_equal(got.chip.clock, state.chip.clock);
	assert_memory_equal(got.dev.log, state.dev.log, sizeof(got.dev.log));
	assert_int_equal(got.dev.serial.mcr, 0xb);
	assert_true(got.dev.serial.fifo);
	assert_int_equal(got.dev.log_total, 100000);
	assert_int_equal(got.dev.virtio.status, STATUS_RUNNING);
	assert_int_equal(got.dev.virtio.q[5].last_avail, 0xfff5);
	assert_int_equal(got.dev.virtio.q[5].used, 0x64000);
	assert_int_equal(got.dev.virtio.q[5].signalled, 25);
	assert_int_equal(got.dev.vcon.tx.off, 9);
	assert_true(got.dev.vcon.guest_open);
	assert_int_equal(got.warm.n, 2);
	assert_int_equal(got.warm.page[1], 13);
	for (unsigned i = 0; i < id.vcpus; i++) {
		const struct vcpu_state *a = &got.vcpu[i], *b = &state.vcpu[i];

		assert_memory_equal(&a->sregs, &b->sregs, sizeof(a->sregs));
		assert_memory_equal(&a->xcrs, &b->xcrs, sizeof(a->xcrs));
		assert_memory_equal(a->xsave, b->xsave, sizeof(a->xsave));
		assert_memory_equal(&a->regs, &b->regs, sizeof(a->regs));
		assert_memory_equal(&a->lapic, &b->lapic, sizeof(a->lapic));
		assert_memory_equal(&a->events, &b->events, sizeof(a->events));
		assert_memory_equal(&a->debug, &b->debug, sizeof(a->debug));
		assert_int_equal(a->mp.mp_state, b->mp.mp_state);
		assert_int_equal(a->tsc, b->tsc);
		assert_int_equal(got.vcpu[i].msr_n, 2);
		assert_int_equal(got.vcpu[i].msr[0].data, i);
	}
}

static void
truncations(void **unused)
{
	(void)unused;
	for (size_t len = 0; len < blob.len; len++) {
		/* of its own length, so that a sanitizer sees every byte too far */
		_cleanup_(freep) uint8_t *cut = malloc(len + !len);
		uint64_t total = len;

		memcpy(cut, blob.data, len);
		assert_true(decode(cut, len) < 0);
		assert_true(err[0] != '\0');
		/* and with a header that says so */
		if (len < 24)
			continue;
		memcpy(cut + 16, &total, sizeof(total));
		assert_true(decode(cut, len) < 0);
	}
}

static void
other_machines(void **unused)
{
	const struct vm_identity mine = id;

	(void)unused;
	id.mem_size *= 2;
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	assert_non_null(strstr(err, "128"));
	id = mine;
	id.vcpus = 1;
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	assert_non_null(strstr(err, "vCPUs"));
	id = mine;
	id.cpuid++;
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	assert_non_null(strstr(err, "features"));
	id = mine;
	id.layout++;
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	assert_non_null(strstr(err, "layout"));
	id = mine;
	id.tsc_khz += 100000;
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	assert_non_null(strstr(err, "kHz"));
	id.tsc_khz = mine.tsc_khz + 500; /* measured a little differently */
	assert_int_equal(decode(blob.data, blob.len), 0);
	id = mine;
	blob.data[8]++;
	assert_int_equal(decode(blob.data, blob.len), -ENOTSUP);
	assert_non_null(strstr(err, "version"));
}

/* One thing wrong in the state itself. */
static void
expect_refused(const char *words)
{
	blob_fini(&blob);
	AZ(vm_state_encode(&state, &id, &blob));
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	assert_non_null(strstr(err, words));
}

static void
nonsense(void **unused)
{
	const struct vm_state fine = state;

	(void)unused;
#define WRONG(change, words) \
	do { \
		state = fine; \
		change; \
		expect_refused(words); \
	} while (0)
	WRONG(state.chip.ioapic.base_address = 0x1000, "IOAPIC");
	WRONG(state.dev.log_total = 5, "serial");
	WRONG(state.dev.virtio.status |= 0x100, "channel");
	WRONG(state.dev.virtio.driver_features |= 1ull << 40, "channel");
	WRONG(state.dev.virtio.driver_features = 0, "channel");
	WRONG(state.dev.virtio.status = 4, "channel");
	WRONG(state.dev.virtio.q[4].num = 3, "channel");
	WRONG(state.dev.virtio.q[4].num = 0, "channel");
	WRONG(state.dev.virtio.q[4].num = 256, "channel");
	WRONG(state.dev.virtio.q[4].desc = MEM_SIZE, "channel");
	WRONG(state.dev.virtio.q[5].used = UINT64_MAX - 3, "channel");
	WRONG(state.dev.virtio.q[5].avail++, "channel");
	WRONG(state.dev.virtio.q[5].event_idx = true, "channel");
	WRONG(state.dev.vcon.tx.head = 256, "channel");
	WRONG(state.warm.page[0] = (uint32_t)(MEM_SIZE / 4096) << 1, "page");
	WRONG(state.vcpu[1].msr[0].index = 0x10, "MSR");
	WRONG(state.vcpu[1].msr[0].index = 0x4b564d01, "twice");
#undef WRONG
	state = fine;
}

static void
sections(void **unused)
{
	size_t first = 56, second;
	uint64_t len;
	uint8_t *more;

	(void)unused;
	/* a section twice, an unknown one, one for a vCPU that is not there */
	memcpy(&len, blob.data + first + 8, sizeof(len));
	second = first + 16 + len;
	memcpy(blob.data + second, blob.data + first, 4);
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	blob.data[second] = 99;
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	assert_non_null(strstr(err, "99.0"));
	blob.data[second] = 2;
	blob.data[second + 4] = 200;
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	blob.data[second + 4] = 0;
	assert_int_equal(decode(blob.data, blob.len), 0);
	/* a length that reaches past the end, and one that wraps */
	memset(blob.data + first + 8, 0xff, 8);
	assert_int_equal(decode(blob.data, blob.len), -EINVAL);
	memcpy(blob.data + first + 8, &len, sizeof(len));
	/* something after the end */
	more = malloc(blob.len + 1);
	assert_non_null(more);
	memcpy(more, blob.data, blob.len);
	more[blob.len] = 0;
	len = blob.len + 1;
	memcpy(more + 16, &len, sizeof(len));
	assert_int_equal(decode(more, blob.len + 1), -EINVAL);
	free(more);
}

/* Any change of any bytes: refused, or a state in which what the devices rely on
 * holds. */
static void
mutations(void **unused)
{
	const struct gmem mem = {.size = MEM_SIZE};
	uint64_t x = 88172645463325252u;
	unsigned accepted = 0;

	(void)unused;
	for (unsigned n = 0; n < 30000; n++) {
		size_t at, len;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		/* half of them where the small sections are: the devices' */
		at = n % 2 == 0 ? x % blob.len : blob.len - 1 - (x >> 8) % 1024;
		len = MIN(1 + (x >> 40) % 4, blob.len - at);
		for (size_t i = 0; i < len; i++)
			blob.data[at + i] ^= (uint8_t)(x >> 48);
		if (decode(blob.data, blob.len) == 0) {
			accepted++;
			assert_true(got.dev.log_len <= sizeof(got.dev.log));
			assert_true(got.warm.n <= VM_WARM_MAX);
			for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
				struct virtq q = got.dev.virtio.q[i];

				q.num_max = vcon_queue_max(i);
				assert_true(q.num <= q.num_max);
				assert_true(!q.ready || virtq_check(&q, &mem) == 0);
			}
			for (unsigned i = 0; i < id.vcpus; i++)
				assert_true(got.vcpu[i].msr_n <= VCPU_MSRS_MAX);
		}
		for (size_t i = 0; i < len; i++)
			blob.data[at + i] ^= (uint8_t)(x >> 48);
	}
	print_message("# accepted: %u\n", accepted);
	assert_in_range(accepted, 1, 29999);
	assert_int_equal(decode(blob.data, blob.len), 0);
}

/* What devices get is what they gave. */
static void
devices(void **unused)
{
	static struct serial a, b;
	static struct vcon c, d;
	static struct dev_state s;
	struct gmem mem;
	char tail[64];

	(void)unused;
	assert_int_equal(gmem_init(&mem, 1 << 20, -1), 0);
	serial_init(&a, -1);
	serial_init(&b, -1);
	vcon_init(&c, &mem, -1, -1);
	vcon_init(&d, &mem, -1, -1);
	for (const char *p = "the words"; *p != '\0'; p++)
		serial_write(&a, 0, (uint8_t)*p);
	for (unsigned i = 0; i < 2 * VM_CONSOLE_MAX; i++)
		serial_write(&b, 0, 'x');
	c.virtio.st.isr = 3;
	c.st.guest_open = true;
	d.virtio.broken = true;
	dev_state_get(&s, &a, &c);
	dev_state_set(&s, &b, &d);
	assert_int_equal(serial_tail(&b, tail, sizeof(tail)), 9);
	assert_string_equal(tail, "the words");
	assert_null(memchr(b.log, 'x', sizeof(b.log)));
	assert_int_equal(d.virtio.st.isr, 3);
	assert_int_equal(d.virtio.st.q[5].num_max, vcon_queue_max(5));
	assert_true(d.st.guest_open);
	assert_false(d.virtio.broken);
	/* and a log that has wrapped */
	for (unsigned i = 0; i < VM_CONSOLE_MAX + 5; i++)
		serial_write(&a, 0, (uint8_t)('a' + i % 7));
	dev_state_get(&s, &a, &c);
	dev_state_set(&s, &b, &d);
	assert_int_equal(b.total, a.total);
	assert_memory_equal(b.log, a.log, sizeof(a.log));
	serial_fini(&a);
	serial_fini(&b);
	vcon_fini(&c);
	vcon_fini(&d);
	gmem_fini(&mem);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(comes_back, setup, teardown),
	    cmocka_unit_test_setup_teardown(truncations, setup, teardown),
	    cmocka_unit_test_setup_teardown(other_machines, setup, teardown),
	    cmocka_unit_test_setup_teardown(nonsense, setup, teardown),
	    cmocka_unit_test_setup_teardown(sections, setup, teardown),
	    cmocka_unit_test_setup_teardown(mutations, setup, teardown),
	    cmocka_unit_test(devices),
	};

	return cmocka_run_group_tests_name("kvm state", tests, NULL, NULL);
}
