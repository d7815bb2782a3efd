/* SPDX-License-Identifier: MIT
 *
 * doctor.c - `vmpool doctor`: one row per thing that a pool needs. Runs in a
 * short-lived process of its own; leaves nothing behind.
 */
#include "worker/doctor.h"
#include "kvm/vm.h"
#include "shm/ctl.h"
#include "shm/install.h"
#include "worker/accel.h"
#include "worker/loop.h"
#include "worker/qemu.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>

enum verdict { GOOD, NOTE, BAD };

struct finding {
	enum verdict verdict;
	char text[768];
	char remedy[256]; /* "" = none needed */
};

static void printf_like(3, 4) say(struct finding *f, enum verdict verdict, const char *fmt, ...)
{
	va_list ap;

	f->verdict = verdict;
	va_start(ap, fmt);
	(void)vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
}

static void
remedy(struct finding *f, const char *text)
{
	(void)snprintf(f->remedy, sizeof(f->remedy), "%s", text);
}

static void
check_kvm_device(struct finding *f)
{
	_cleanup_(closep) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		say(f, GOOD, "opens, API version %d", ioctl(fd, KVM_GET_API_VERSION, 0));
		return;
	}
	say(f, NOTE, "cannot open /dev/kvm: %s", strerror(errno));
	remedy(f, errno == EACCES
		      ? "add yourself to the group kvm (adduser USER kvm) and log in again"
		      : "load kvm-intel or kvm-amd; enable virtualisation in the firmware");
}

static void
check_kvm_linux(struct finding *f)
{
	char why[256];
	enum vm_probe p = vm_probe(-1, why, sizeof(why));

	say(f, p == VM_PROBE_OK ? GOOD : NOTE, "%s", why);
	if (p == VM_PROBE_NO_SYSCALL)
		remedy(f, "needs a host with hardware virtualisation (VMX or SVM) or nested KVM");
}

static void
check_tcg(struct finding *f)
{
	char err[256];

	if (qemu_check(err, sizeof(err)) == 0) {
		say(f, GOOD, "%s is installed", QEMU_PROGRAM);
		return;
	}
	say(f, NOTE, "%s", err);
	remedy(f, "apt-get install qemu-system-x86");
}

static void
check_accel(struct finding *f)
{
	char why[600];
	const struct machine_ops *ops = accel_choose("auto", why, sizeof(why));

	if (ops != NULL) {
		say(f, GOOD, "%s will be used: %s", ops->name, why);
		return;
	}
	say(f, BAD, "%s", why);
	remedy(f, "apt-get install qemu-system-x86, or use a host with KVM");
}

static void
check_guest(struct finding *f, const char *file)
{
	char path[PATH_MAX];
	struct stat st;

	install_guest(path, sizeof(path), file);
	if (stat(path, &st) == 0) {
		say(f, GOOD, "%s (%lld KiB)", path, (long long)st.st_size / 1024);
		return;
	}
	say(f, BAD, "%s: %s", path, strerror(errno));
	remedy(f, "make guest");
}

static void
check_kernel(struct finding *f)
{
	char why[600];
	const struct machine_ops *ops = accel_choose("auto", why, sizeof(why));

	check_guest(f, ops == &machine_kvm ? "vmlinux" : "bzImage");
}

static void
check_image(struct finding *f)
{
	check_guest(f, "initramfs");
}

static void
check_uring(struct finding *f)
{
	struct loop *loop = NULL;
	char err[512];

	if (loop_new(&loop, 8, err, sizeof(err)) == 0) {
		say(f, GOOD, "works");
	} else {
		say(f, BAD, "%s", err);
		remedy(f, "sysctl kernel.io_uring_disabled=0; in a container allow io_uring_setup");
	}
	loop_free(loop);
}

static void
check_memfd(struct finding *f)
{
	_cleanup_(closep) int fd = memfd_create("vmpool-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0) {
		say(f, GOOD, "memfd with seals works");
		return;
	}
	say(f, BAD, "memfd_create with seals: %s", strerror(errno));
	remedy(f, "needs Linux 6.1 or newer; in a container allow memfd_create");
}

static void
check_waitv(struct finding *f)
{
	/* No waiters: the kernel answers EINVAL if it knows the call, ENOSYS if not. */
	long r = syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0);

	if (r < 0 && errno == EINVAL) {
		say(f, GOOD, "futex_waitv works");
		return;
	}
	say(f, NOTE, "futex_waitv is missing: a supervisor's death is noticed in 50 ms");
	remedy(f, "Linux 5.16 or newer; in a container allow futex_waitv");
}

static void
check_rundir(struct finding *f)
{
	char dir[PATH_MAX], err[512];

	if (ctl_rundir(dir, sizeof(dir), err, sizeof(err)) < 0) {
		say(f, BAD, "%s", err);
		remedy(f, "set VMPOOL_RUNDIR to a short path of your own");
		return;
	}
	if (access(dir, W_OK | X_OK) == 0) {
		say(f, GOOD, "%s is writable", dir);
		return;
	}
	char *slash = strrchr(dir, '/');

	if (errno == ENOENT && slash != NULL && slash != dir) {
		*slash = '\0';
		if (access(dir, W_OK | X_OK) == 0) {
			say(f, GOOD, "%s/%s will be created", dir, slash + 1);
			return;
		}
		*slash = '/';
	}
	say(f, BAD, "cannot write to %s: %s", dir, strerror(errno));
	remedy(f, "set VMPOOL_RUNDIR to a folder of your own, or run as root");
}

static void
check_limits(struct finding *f)
{
	struct rlimit lim;
	struct sysinfo si;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || sysinfo(&si) < 0) {
		say(f, NOTE, "cannot be read: %s", strerror(errno));
		return;
	}
	say(f, lim.rlim_max < 1024 ? NOTE : GOOD,
	    "%llu open files at most, %llu MiB of memory free, %d processors",
	    (unsigned long long)lim.rlim_max, (unsigned long long)si.freeram * si.mem_unit >> 20,
	    get_nprocs());
	if (lim.rlim_max < 1024)
		remedy(f, "raise the hard limit: ulimit -Hn 65536");
}

static const struct check {
	const char *name;
	void (*run)(struct finding *f);
} checks[] = {
    {"kvm device", check_kvm_device},
    {"kvm runs linux", check_kvm_linux},
    {"tcg", check_tcg},
    {"accelerator", check_accel},
    {"guest kernel", check_kernel},
    {"guest image", check_image},
    {"io_uring", check_uring},
    {"shared memory", check_memfd},
    {"futex", check_waitv},
    {"runtime directory", check_rundir},
    {"limits", check_limits},
};

static const char *const verdict_name[] = {"ok", "note", "problem"};

/* Paths are anybody's bytes: JSON takes text only, and no terminal is to be commanded. */
static void
make_printable(char *text)
{
	for (; *text != '\0'; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

static void
print_text(const char *name, const struct finding *f)
{
	(void)printf("%-18s %-8s %s\n", name, verdict_name[f->verdict], f->text);
	if (f->remedy[0] != '\0')
		(void)printf("%-27s remedy: %s\n", "", f->remedy);
}

static int
print_json(json_t *rows, bool good)
{
	json_t *root = json_pack("{s:b, s:o}", "can_start", good, "checks", rows);
	int r = root == NULL ? -1 : json_dumpf(root, stdout, JSON_INDENT(2));

	json_decref(root);
	(void)putchar('\n');
	return r;
}

int
doctor_run(bool json)
{
	json_t *rows = json_array();
	bool good = true;

	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct finding f = {0};

		checks[i].run(&f);
		make_printable(f.text);
		make_printable(f.remedy);
		good &= f.verdict != BAD;
		if (json)
			(void)json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:s}", "check",
								    checks[i].name, "verdict",
								    verdict_name[f.verdict], "text",
								    f.text, "remedy", f.remedy));
		else
			print_text(checks[i].name, &f);
	}
	if (json)
		return print_json(rows, good) == 0 && good ? 0 : 1;
	json_decref(rows);
	(void)printf("%s\n", good ? "a pool can start here" : "no pool can start here");
	return good ? 0 : 1;
}
