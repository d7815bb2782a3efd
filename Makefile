# vmpool - see README.md. The two commands that matter: make demo, make test.
#
# Sources are found by folder: a file with a main() is named in PROGRAM_SRC, a
# test is any tests/{unit,kvm,crash}/test_*.c (one program each), and a fuzz target any
# tests/fuzz/target/*.c, which is a libFuzzer program and a test that replays its corpus.

CC ?= cc
# V=1 shows the commands.
Q := $(if $(V),,@)
PREFIX ?= /usr/local
B := build
PKGS := liburing inih jansson libxxhash
CFLAGS ?= -O2 -g
CPPFLAGS += -D_GNU_SOURCE -I. $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	-Wpointer-arith -Wwrite-strings -Wundef -Wformat=2
ALL_CFLAGS = -std=gnu11 -pthread -fPIC -fvisibility=default $(WARN) $(CFLAGS)
LDLIBS := -pthread $(shell pkg-config --libs $(PKGS) 2>/dev/null || echo -luring -linih -ljansson -lxxhash)

PROGRAM_SRC := shm/vmpool.c shm/vmpoolstat.c supervisor/main.c worker/main.c
obj = $(patsubst %.c,$(B)/obj/%.o,$(filter-out $(PROGRAM_SRC),$(wildcard $(1))))
SHM := $(call obj,shm/*.c)
KVM := $(call obj,kvm/*.c)
WORKER := $(call obj,worker/*.c)
SUPERVISOR := $(call obj,supervisor/*.c)
# What the client programs share besides the library.
CLI := $(call obj,shm/cli/*.c)

BIN := $(B)/bin/vmpoold $(B)/bin/vmpool $(B)/bin/vmpoolstat $(B)/libexec/vmpool-worker
BENCHES := $(patsubst tests/%.c,$(B)/%,$(wildcard tests/bench/bench_*.c))
# The programs with crash points and the null machine compiled in (VMPOOL_TEST).
TEST_BIN := $(B)/test/bin/vmpoold $(B)/test/bin/vmpool $(B)/test/bin/vmpoolstat $(B)/test/libexec/vmpool-worker
FUZZERS := $(patsubst tests/%.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
# Of libFuzzer, and what replays the inputs kept of each.
TARGETS := $(patsubst tests/fuzz/target/%.c,%,$(wildcard tests/fuzz/target/*.c))
TESTS := $(TARGETS:%=$(B)/tests/unit/test_corpus_%) $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c tests/kvm/test_*.c tests/crash/test_*.c))

# Clients that the end-to-end tests run: they know the library only.
E2E := $(patsubst tests/%.c,$(B)/%,$(wildcard tests/e2e/*.c))

.PHONY: all tests test-programs stress-programs fuzzers libfuzzers benches stress fuzz guest kernel demo test bench lint asan tsan install clean
all: $(BIN) $(B)/lib/libvmpool.so $(B)/lib/libvmpool.a
tests: $(TESTS) $(E2E)
benches: $(BENCHES)
test-programs: $(TEST_BIN)
stress-programs: $(TEST_BIN) $(B)/stress/stress
fuzzers: $(TEST_BIN) $(FUZZERS)
libfuzzers: $(TARGETS:%=$(B)/fuzz/%)

# --- what people type ---------------------------------------------------------
# Each installs what it needs first, so that a fresh machine needs nothing else.
demo:
	scripts/setup --demo
	$(MAKE) -j2 all guest
	scripts/demo

test:
	scripts/setup --test
	$(MAKE) -j2 all tests stress-programs guest
	scripts/run-tests

bench:
	scripts/setup --test
	$(MAKE) -j2 all benches guest
	scripts/bench

lint:
	scripts/setup --lint
	scripts/lint

# The guest's kernel, agent and image; the small kernel, preferred once built.
guest:
	scripts/guest-kernel
	scripts/guest-image

kernel:
	scripts/setup --kernel
	scripts/small-kernel

# The unit and crash tests under the sanitizers, in build trees of their own. (Some
# run the programs, which are the usual ones.)
asan: all guest
	scripts/setup --test
	$(MAKE) -j2 B=$(B)/asan CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all" tests
	VMPOOL_TESTS=$(B)/asan/tests scripts/run-tests unit crash

tsan: all guest
	scripts/setup --test
	$(MAKE) -j2 B=$(B)/tsan CFLAGS="-O1 -g -fsanitize=thread -Wno-tsan" tests
	VMPOOL_TESTS=$(B)/tsan/tests scripts/run-tests unit

# make stress SECONDS=600 ACCEL=tcg; see scripts/stress --help, scripts/fuzz --help.
stress:
	scripts/setup --test
	$(MAKE) -j2 stress-programs $(if $(filter-out null,$(ACCEL)),guest)
	scripts/stress $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ACCEL),--accel $(ACCEL)) $(if $(SEED),--seed $(SEED))

# Under the sanitizers, which see what a survivor would not notice.
fuzz:
	scripts/setup --fuzz
	$(MAKE) -j2 B=$(B)/asan CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all" fuzzers
	$(MAKE) -j2 B=$(B)/libfuzzer CC=clang CFLAGS="-O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all" libfuzzers
	scripts/fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

install: all guest
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include \
		$(DESTDIR)$(PREFIX)/libexec/vmpool $(DESTDIR)$(PREFIX)/share/vmpool/guest
	install $(B)/bin/* $(DESTDIR)$(PREFIX)/bin
	install $(B)/libexec/* $(DESTDIR)$(PREFIX)/libexec/vmpool
	install -m 644 $(B)/lib/libvmpool.a $(DESTDIR)$(PREFIX)/lib
	install $(B)/lib/libvmpool.so $(DESTDIR)$(PREFIX)/lib/libvmpool.so.1
	ln -sf libvmpool.so.1 $(DESTDIR)$(PREFIX)/lib/libvmpool.so
	install -m 644 shm/vmpool.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $(addprefix $(B)/guest/current/,vmlinux bzImage initramfs) $(DESTDIR)$(PREFIX)/share/vmpool/guest
	sed 's|@PREFIX@|$(PREFIX)|' shm/vmpool.pc.in >$(DESTDIR)$(PREFIX)/lib/pkgconfig/vmpool.pc

clean:
	rm -rf $(B)

# --- how things are made --------------------------------------------------------

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<" && $(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

# The test build has crash points compiled in (shm/crash.h).
$(B)/tobj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $< (test)" && \
		$(CC) $(CPPFLAGS) -DVMPOOL_TEST $(ALL_CFLAGS) -MMD -MP -c $< -o $@

, := ,
link = $(Q)mkdir -p $(@D) && echo "  LD    $@" && $(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^)

$(B)/bin/vmpoold: $(B)/obj/supervisor/main.o $(SUPERVISOR) $(SHM)
	$(link) $(LDLIBS)
$(B)/bin/vmpool: $(B)/obj/shm/vmpool.o $(B)/lib/libcli.a $(SHM)
	$(link) $(LDLIBS)
$(B)/bin/vmpoolstat: $(B)/obj/shm/vmpoolstat.o $(B)/lib/libcli.a $(SHM)
	$(link) $(LDLIBS)
$(B)/libexec/vmpool-worker: $(B)/obj/worker/main.o $(WORKER) $(KVM) $(SHM)
	$(link) $(LDLIBS)

# Each program takes what it uses.
$(B)/lib/libcli.a: $(CLI)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && echo "  AR    $@" && $(AR) rcs $@ $^
$(B)/lib/libvmpool.a: $(SHM)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && echo "  AR    $@" && $(AR) rcs $@ $^
$(B)/lib/libvmpool.so: $(SHM) shm/vmpool.map
	$(Q)mkdir -p $(@D) && echo "  LD    $@" && $(CC) $(ALL_CFLAGS) $(LDFLAGS) -shared -Wl,-soname,libvmpool.so.1 -Wl,--version-script=shm/vmpool.map \
		-o $@ $(filter %.o,$^) -pthread
	$(Q)ln -sf libvmpool.so $(B)/lib/libvmpool.so.1

tobj = $(patsubst $(B)/obj/%,$(B)/tobj/%,$(1))
TEST_LIB := $(call tobj,$(call obj,tests/lib/*.c) $(SHM) $(KVM) $(WORKER) $(SUPERVISOR))
$(B)/lib/libtest.a: $(TEST_LIB)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && echo "  AR    $@" && $(AR) rcs $@ $^
$(B)/tests/%: $(B)/tobj/tests/%.o $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)
# Of the commands themselves.
$(B)/tests/unit/test_cli_%: $(B)/tobj/tests/unit/test_cli_%.o $(B)/lib/libtestcli.a $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)
$(B)/stress/stress: $(call tobj,$(call obj,tests/stress/*.c)) $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)
$(B)/fuzz/fuzz_%: $(B)/tobj/tests/fuzz/fuzz_%.o $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)
# Of the agent, all that touches no machine; before the worker's functions of the same names.
AGENT := $(call tobj,$(patsubst %,$(B)/obj/%.o,tests/fuzz/agent_world \
	$(addprefix kvm/guest/,agent chan cmd exec file file_req pipes pump request turn user util)))
$(B)/fuzz/agent $(B)/tests/unit/test_corpus_agent: $(AGENT)
# What a target has instead of the machine's part, and of sleeping.
wrap = $(addprefix -Wl$(,)--wrap=,$(1))
$(B)/fuzz/agent $(B)/tests/unit/test_corpus_agent: LDFLAGS += $(call wrap,util_fatal util_log util_read_file util_now_ns signalfd waitpid)
$(B)/fuzz/client $(B)/tests/unit/test_corpus_client: LDFLAGS += $(call wrap,lifeline_wait_worker)
# A target, for libFuzzer and for the replay of its corpus.
$(B)/fuzz/%: $(B)/tobj/tests/fuzz/target/%.o $(B)/lib/libtest.a
	$(link) -fsanitize=fuzzer -lcmocka $(LDLIBS)
$(B)/tests/unit/test_corpus_%: $(B)/tobj/tests/fuzz/target/%.o $(B)/tobj/tests/fuzz/replay.o $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)

$(B)/e2e/%: $(B)/obj/tests/e2e/%.o $(call obj,tests/e2e/lib/*.c) $(B)/lib/libvmpool.a
	$(link)

$(B)/lib/libtestcli.a: $(call tobj,$(CLI))
	@mkdir -p $(@D)
	$(Q)rm -f $@ && echo "  AR    $@" && $(AR) rcs $@ $^
$(B)/test/bin/vmpoold: $(B)/tobj/supervisor/main.o $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)
$(B)/test/bin/%: $(B)/tobj/shm/%.o $(B)/lib/libtestcli.a $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)
$(B)/test/libexec/vmpool-worker: $(B)/tobj/worker/main.o $(B)/lib/libtest.a
	$(link) -lcmocka $(LDLIBS)

# Benchmarks measure the code as it ships, without crash points.
BENCH_LIB := $(patsubst %.c,$(B)/obj/%.o,$(filter-out tests/bench/bench_%,$(wildcard tests/bench/*.c)))
$(B)/bench/%: $(B)/obj/tests/bench/%.o $(BENCH_LIB) $(SHM) $(KVM) $(WORKER)
	$(link) -lm $(LDLIBS)

-include $(shell find $(B)/obj $(B)/tobj -name '*.d' 2>/dev/null)
.SECONDARY:
