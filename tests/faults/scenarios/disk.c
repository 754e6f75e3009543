/* A disk that fails when it is told to: loaded before the C library into a real server, which writes to real files. While
 * there is a file FAILING_DISK/full nothing more is written to a file by position, and none grows; while there is
 * FAILING_DISK/no_sync nothing is synced; FAILING_DISK/torn holds a number, and the write after so many more is done by half,
 * and is the process's last. What is said on sockets and in the log goes through other calls, and is left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static void path_of(char *path, size_t size, const char *fault) {
    const char *folder = getenv("FAILING_DISK");
    snprintf(path, size, "%s/%s", folder ? folder : "", fault);
}

static int is(const char *fault) {
    char path[4096];
    int before = errno;
    path_of(path, sizeof path, fault);
    int there = access(path, F_OK) == 0;
    errno = before;
    return there;
}

/* How many more writes are done whole; -1 where none is to be torn. */
static long whole_writes_left(void) {
    static long left = -1;
    if (!is("torn"))
        return -1;
    if (left < 0) {
        char path[4096];
        path_of(path, sizeof path, "torn");
        FILE *file = fopen(path, "r");
        if (!file || fscanf(file, "%ld", &left) != 1)
            left = 0;
        if (file)
            fclose(file);
    }
    return __atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST);
}

typedef ssize_t (*pwrite_call)(int, const void *, size_t, off64_t);
typedef int (*truncate_call)(int, off64_t);
typedef int (*sync_call)(int);

static ssize_t write_at(const char *name, int fd, const void *bytes, size_t count, off64_t offset) {
    pwrite_call next = (pwrite_call)dlsym(RTLD_NEXT, name);
    if (is("full")) {
        errno = ENOSPC;
        return -1;
    }
    if (whole_writes_left() == 0) {
        next(fd, bytes, count / 2, offset);
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    return next(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return write_at("pwrite64", fd, bytes, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return write_at("pwrite", fd, bytes, count, offset);
}

static int resize(const char *name, int fd, off64_t length) {
    if (is("full") && length > lseek64(fd, 0, SEEK_END)) {
        errno = ENOSPC;
        return -1;
    }
    return ((truncate_call)dlsym(RTLD_NEXT, name))(fd, length);
}

int ftruncate64(int fd, off64_t length) { return resize("ftruncate64", fd, length); }
int ftruncate(int fd, off_t length) { return resize("ftruncate", fd, length); }

static int sync_file(const char *name, int fd) {
    if (is("no_sync")) {
        errno = EIO;
        return -1;
    }
    return ((sync_call)dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return sync_file("fsync", fd); }
int fdatasync(int fd) { return sync_file("fdatasync", fd); }
