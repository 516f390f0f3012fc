/* Counts the calls of a process tree that change files below one folder, and kills it at a chosen one.

   Loaded with LD_PRELOAD by disk_steps.py, which describes the control block. All libraries of a process are seen, and
   all its threads: Python, Arrow, DuckDB, safetensors. What is not seen: pages that are changed through a mapping. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    int32_t mode;  /* 0: idle, 1: count, 2: count and kill */
    int32_t half;  /* kill in the middle of a write, not before it */
    _Atomic int64_t count;
    int64_t target;  /* number of the fatal call, from 0 */
    int32_t group;   /* kill the whole process group of the caller, not the caller alone */
    int32_t length;  /* bytes of the folder's path */
    char folder[2016];
    char last[512];  /* the fatal call */
};

static struct control *control;

static void __attribute__((constructor)) begin(void)
{
    const char *name = getenv("DISK_STEPS");
    if (name == NULL)
        return;
    int (*opened)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int file = opened(name, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return;
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED)
        control = at;
}

static int watched(const char *path)
{
    return strncmp(path, control->folder, control->length) == 0
        && (path[control->length] == '/' || path[control->length] == 0);
}

static int path_of(int descriptor, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return 1;
}

static void die(const char *call, const char *path)
{
    snprintf(control->last, sizeof control->last, "%s %s", call, path + control->length);
    kill(control->group ? 0 : getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Whether this call is the fatal one. */
static int fatal(void)
{
    int64_t number = atomic_fetch_add(&control->count, 1);
    return control->mode == 2 && number == control->target;
}

static int at_name(int folder, const char *name, char *path, size_t size)
{
    if (name == NULL)
        return 0;
    if (name[0] == '/' || folder == AT_FDCWD) {
        snprintf(path, size, "%s", name);
        return 1;
    }
    if (!path_of(folder, path, size))
        return 0;
    size_t length = strlen(path);
    snprintf(path + length, size - length, "/%s", name);
    return 1;
}

static void before_name(const char *call, int folder, const char *name)
{
    char path[4096];
    if (control == NULL || control->mode == 0 || !at_name(folder, name, path, sizeof path) || !watched(path))
        return;
    if (fatal())
        die(call, path);
}

/* 0: go ahead; else write so many bytes first, then die. */
static size_t before_write(const char *call, int descriptor, size_t size, char *path, size_t room)
{
    if (control == NULL || control->mode == 0 || !path_of(descriptor, path, room) || !watched(path))
        return 0;
    if (!fatal())
        return 0;
    if (control->half && size > 1)
        return size / 2;
    die(call, path);
    return 0;
}

#define REAL(name) static __typeof__(name) *real; if (real == NULL) real = (__typeof__(name) *) dlsym(RTLD_NEXT, #name)

#define OPEN(name, folder, ...)                                        \
    {                                                                         \
        mode_t mode = 0;                                                      \
        REAL(name);                                                           \
        if (flags & (O_CREAT | O_TMPFILE)) {                                  \
            va_list rest;                                                     \
            va_start(rest, flags);                                            \
            mode = va_arg(rest, mode_t);                                      \
            va_end(rest);                                                     \
        }                                                                     \
        if (flags & (O_CREAT | O_TRUNC))                                      \
            before_name(#name, folder, path);                                 \
        return real(__VA_ARGS__, flags, mode);                                \
    }

int open(const char *path, int flags, ...) OPEN(open, AT_FDCWD, path)
int open64(const char *path, int flags, ...) OPEN(open64, AT_FDCWD, path)
int openat(int folder, const char *path, int flags, ...) OPEN(openat, folder, folder, path)
int openat64(int folder, const char *path, int flags, ...) OPEN(openat64, folder, folder, path)

ssize_t write(int descriptor, const void *data, size_t size)
{
    char path[4096];
    REAL(write);
    size_t half = before_write("write", descriptor, size, path, sizeof path);
    if (half) {
        ssize_t done = real(descriptor, data, half);
        (void) done;
        die("half a write", path);
    }
    return real(descriptor, data, size);
}

#define PWRITE(name, type)                                                    \
    ssize_t name(int descriptor, const void *data, size_t size, type at)      \
    {                                                                         \
        char path[4096];                                                      \
        REAL(name);                                                           \
        size_t half = before_write(#name, descriptor, size, path, sizeof path); \
        if (half) {                                                           \
            ssize_t done = real(descriptor, data, half, at);                  \
            (void) done;                                                      \
            die("half a write", path);                                        \
        }                                                                     \
        return real(descriptor, data, size, at);                              \
    }

PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    char path[4096];
    REAL(writev);
    size_t half = before_write("writev", descriptor, 2, path, sizeof path);
    if (half) {
        ssize_t done = real(descriptor, pieces, count > 1 ? count / 2 : 1);
        (void) done;
        die("half a write", path);
    }
    return real(descriptor, pieces, count);
}

ssize_t sendfile(int target, int source, off_t *at, size_t size);
ssize_t sendfile(int target, int source, off_t *at, size_t size)
{
    char path[4096];
    REAL(sendfile);
    if (before_write("sendfile", target, 2, path, sizeof path))
        die("sendfile", path);
    return real(target, source, at, size);
}

#define OF_DESCRIPTOR(name)                                                   \
    int name(int descriptor)                                                  \
    {                                                                         \
        char path[4096];                                                      \
        REAL(name);                                                           \
        if (before_write(#name, descriptor, 2, path, sizeof path))            \
            die(#name, path);                                                 \
        return real(descriptor);                                              \
    }

OF_DESCRIPTOR(fsync)
OF_DESCRIPTOR(fdatasync)

#define TRUNCATE(name, type)                                                  \
    int name(int descriptor, type size)                                       \
    {                                                                         \
        char path[4096];                                                      \
        REAL(name);                                                           \
        if (before_write(#name, descriptor, 2, path, sizeof path))            \
            die(#name, path);                                                 \
        return real(descriptor, size);                                        \
    }

TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int rename(const char *from, const char *to)
{
    REAL(rename);
    before_name("rename", AT_FDCWD, to);
    return real(from, to);
}

int renameat(int source, const char *from, int folder, const char *to)
{
    REAL(renameat);
    before_name("renameat", folder, to);
    return real(source, from, folder, to);
}

int renameat2(int source, const char *from, int folder, const char *to, unsigned int flags)
{
    REAL(renameat2);
    before_name("renameat2", folder, to);
    return real(source, from, folder, to, flags);
}

int unlink(const char *path)
{
    REAL(unlink);
    before_name("unlink", AT_FDCWD, path);
    return real(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    REAL(unlinkat);
    before_name("unlinkat", folder, path);
    return real(folder, path, flags);
}

int rmdir(const char *path)
{
    REAL(rmdir);
    before_name("rmdir", AT_FDCWD, path);
    return real(path);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    before_name("mkdir", AT_FDCWD, path);
    return real(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    REAL(mkdirat);
    before_name("mkdirat", folder, path);
    return real(folder, path, mode);
}

int link(const char *from, const char *to)
{
    REAL(link);
    before_name("link", AT_FDCWD, to);
    return real(from, to);
}

int symlink(const char *from, const char *to)
{
    REAL(symlink);
    before_name("symlink", AT_FDCWD, to);
    return real(from, to);
}
