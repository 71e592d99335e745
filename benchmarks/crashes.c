/* Faults at the n-th change below a directory, for benchmarks/crashes.py: loaded by LD_PRELOAD.

   Counted are the calls of the C library by which Python, TensorStore and all others change files:
   open with O_CREAT, write, fsync, rename, mkdir, unlink, truncate and their siblings. Before
   `arm`, and elsewhere, they are what they always are. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COPY, KILL, FULL, TERM, BOTH };

static char root[PATH_MAX], copies[PATH_MAX];
static size_t root_length;
static long at, counted;
static int fault, record = -1;
static pthread_mutex_t one_change = PTHREAD_MUTEX_INITIALIZER;
static __thread int changing;

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

/* Begin to count below `directory`; at change number `n`, from 1, do `what`. The changes are listed
   in the file `into`: number, kind, path. COPY leaves, in the directory `into_copies`, what a kill
   before each change would leave (n), and in the middle of each write (n-torn). */
void arm(const char *directory, long n, int what, const char *into, const char *into_copies) {
  record = REAL(open)(into, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  strcpy(copies, into_copies);
  strcpy(root, directory);
  at = n, fault = what, root_length = strlen(directory);
}

static void copy(const char *suffix) {
  char target[2 * PATH_MAX];
  char *words[] = {"cp", "-a", root, target, NULL}, *environment[] = {NULL};
  pid_t child;
  snprintf(target, sizeof target, "%s/%ld%s", copies, counted, suffix);
  if (posix_spawn(&child, "/bin/cp", NULL, NULL, words, environment)) abort();
  waitpid(child, NULL, 0);
}

static const char *absolute(int folder, const char *path, char *into) {
  char link[64];
  ssize_t length;
  if (path && path[0] == '/') return strncpy(into, path, PATH_MAX - 1);
  if (folder == AT_FDCWD) {
    if (!getcwd(into, PATH_MAX)) return NULL;
    length = strlen(into);
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    if ((length = readlink(link, into, PATH_MAX - 1)) < 0) return NULL;
  }
  into[length] = 0;
  if (path) snprintf(into + length, PATH_MAX - length, "/%s", path);
  return into;
}

/* Begin a change, one at a time; returns whether it fails because the disk is full, with errno. */
static int fails(const char *kind, int folder, const char *path) {
  char full[PATH_MAX] = "", line[PATH_MAX + 64];
  if (!root_length || !absolute(folder, path, full) || strncmp(full, root, root_length) ||
      (full[root_length] != '/' && full[root_length]))
    return 0;
  pthread_mutex_lock(&one_change);
  changing = 1, counted++;
  int length = snprintf(line, sizeof line, "%ld %s %s\n", counted, kind, full + root_length);
  if (REAL(write)(record, line, length) < 0) abort();
  if (fault == COPY) copy("");
  if (fault == KILL && counted == at) kill(getpid(), SIGKILL), pause();
  if (fault >= TERM && counted == at) kill(getpid(), SIGTERM);
  if (fault == BOTH && counted == at) kill(getpid(), SIGINT);
  if (fault != FULL || counted < at || !strcmp(kind, "unlink")) return 0;
  changing = 0;
  pthread_mutex_unlock(&one_change);
  errno = ENOSPC;
  return 1;
}

static void done(void) {
  int before = errno;
  if (changing) changing = 0, pthread_mutex_unlock(&one_change);
  errno = before;
}

/* A change, done by `call`, of type `type`. */
#define DO(type, kind, folder, path, call)                                \
  do {                                                                    \
    if (fails(kind, folder, path)) return -1;                             \
    type result = call;                                                   \
    done();                                                               \
    return result;                                                        \
  } while (0)

/* A write: COPY copies as well between `half` of it, of `first` bytes, and the `rest`. */
#define WRITE(file, first, half, rest, call)                              \
  do {                                                                    \
    if (fails("write", file, NULL)) return -1;                            \
    ssize_t part = 0, result;                                             \
    if (changing && fault == COPY && first) {                             \
      if ((part = half) != (ssize_t)(first)) abort();                     \
      copy("-torn");                                                      \
      result = rest;                                                      \
    } else {                                                              \
      result = call;                                                      \
    }                                                                     \
    done();                                                               \
    return result < 0 ? result : part + result;                           \
  } while (0)

ssize_t write(int file, const void *data, size_t size) {
  size_t half = size / 2;
  WRITE(file, half, REAL(write)(file, data, half),
        REAL(write)(file, (const char *)data + half, size - half), REAL(write)(file, data, size));
}
ssize_t pwrite(int file, const void *data, size_t size, off_t place) {
  size_t half = size / 2;
  WRITE(file, half, REAL(pwrite)(file, data, half, place),
        REAL(pwrite)(file, (const char *)data + half, size - half, place + half),
        REAL(pwrite)(file, data, size, place));
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
  return pwrite(file, data, size, place);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
  struct iovec rest[count];
  size_t half = parts[0].iov_len / 2;
  memcpy(rest, parts, sizeof rest);
  rest[0].iov_base = (char *)rest[0].iov_base + half;
  rest[0].iov_len -= half;
  WRITE(file, half, REAL(write)(file, parts[0].iov_base, half), REAL(writev)(file, rest, count),
        REAL(writev)(file, parts, count));
}
ssize_t sendfile(int file, int source, off_t *place, size_t size) {
  size_t half = size / 2;
  WRITE(file, half, REAL(sendfile)(file, source, place, half),
        REAL(sendfile)(file, source, place, size - half),
        REAL(sendfile)(file, source, place, size));
}
ssize_t sendfile64(int file, int source, off64_t *place, size_t size) {
  return sendfile(file, source, place, size);
}

#define OPEN()                                                        \
  mode_t mode = 0;                                                        \
  va_list rest;                                                           \
  va_start(rest, flags);                                                  \
  if (flags & O_CREAT) mode = va_arg(rest, mode_t);                       \
  va_end(rest);

int open(const char *path, int flags, ...) {
  OPEN()
  if (!(flags & O_CREAT)) return REAL(open)(path, flags, mode);
  DO(int, "open", AT_FDCWD, path, REAL(open)(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
  OPEN()
  return open(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
  OPEN()
  if (!(flags & O_CREAT)) return REAL(openat)(folder, path, flags, mode);
  DO(int, "open", folder, path, REAL(openat)(folder, path, flags, mode));
}
int openat64(int folder, const char *path, int flags, ...) {
  OPEN()
  return openat(folder, path, flags, mode);
}

#define CHANGE(name, kind, folder, path, parameters, arguments)           \
  int name parameters { DO(int, kind, folder, path, REAL(name) arguments); }

CHANGE(fsync, "fsync", file, NULL, (int file), (file))
CHANGE(fdatasync, "fsync", file, NULL, (int file), (file))
CHANGE(ftruncate, "truncate", file, NULL, (int file, off_t size), (file, size))
CHANGE(ftruncate64, "truncate", file, NULL, (int file, off64_t size), (file, size))
CHANGE(mkdir, "mkdir", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CHANGE(mkdirat, "mkdir", folder, path, (int folder, const char *path, mode_t mode),
       (folder, path, mode))
CHANGE(unlink, "unlink", AT_FDCWD, path, (const char *path), (path))
CHANGE(unlinkat, "unlink", folder, path, (int folder, const char *path, int flags),
       (folder, path, flags))
CHANGE(rmdir, "unlink", AT_FDCWD, path, (const char *path), (path))
CHANGE(rename, "rename", AT_FDCWD, to, (const char *from, const char *to), (from, to))
CHANGE(renameat, "rename", there, to, (int here, const char *from, int there, const char *to),
       (here, from, there, to))
CHANGE(link, "rename", AT_FDCWD, to, (const char *from, const char *to), (from, to))
