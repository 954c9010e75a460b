/* libzmq, loaded at run time from a path: benchmarks run on the very library that pyzmq brings along, and no headers of
 * it need to be installed. Only what is used here is declared. */
#pragma once

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { _Alignas(void *) unsigned char opaque[64]; } zmsg;
typedef struct { void *socket; int fd; short events, revents; } zpoll;

enum { Z_DEALER = 5, Z_ROUTER = 6 };
enum { Z_POLLIN = 1 };
enum { Z_DONTWAIT = 1, Z_SNDMORE = 2 };
enum { Z_LINGER = 17, Z_SNDHWM = 23, Z_RCVHWM = 24, Z_LAST_ENDPOINT = 32, Z_ROUTER_MANDATORY = 33 };

static struct {
    void *(*ctx_new)(void);
    void *(*socket)(void *, int);
    int (*setsockopt)(void *, int, const void *, size_t);
    int (*getsockopt)(void *, int, void *, size_t *);
    int (*bind)(void *, const char *);
    int (*connect)(void *, const char *);
    int (*poll)(zpoll *, int, long);
    int (*msg_init)(zmsg *);
    int (*msg_init_size)(zmsg *, size_t);
    int (*msg_recv)(zmsg *, void *, int);
    int (*msg_send)(zmsg *, void *, int);
    int (*msg_close)(zmsg *);
    int (*msg_more)(const zmsg *);
    void *(*msg_data)(zmsg *);
    size_t (*msg_size)(const zmsg *);
    int (*send)(void *, const void *, size_t, int);
} Z;

__attribute__((noreturn, unused)) static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}

static void load_zmq(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
#define LOAD(name) *(void **)&Z.name = symbol(library, "zmq_" #name)
    LOAD(ctx_new);
    LOAD(socket);
    LOAD(setsockopt);
    LOAD(getsockopt);
    LOAD(bind);
    LOAD(connect);
    LOAD(poll);
    LOAD(msg_init);
    LOAD(msg_init_size);
    LOAD(msg_recv);
    LOAD(msg_send);
    LOAD(msg_close);
    LOAD(msg_more);
    LOAD(msg_data);
    LOAD(msg_size);
    LOAD(send);
#undef LOAD
}

static void *open_socket(void *context, int kind)
{
    int none = 0;
    void *socket = Z.socket(context, kind);
    if (!socket)
        die("zmq_socket");
    Z.setsockopt(socket, Z_LINGER, &none, sizeof none);
    Z.setsockopt(socket, Z_SNDHWM, &none, sizeof none);
    Z.setsockopt(socket, Z_RCVHWM, &none, sizeof none);
    return socket;
}

static double now_s(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

__attribute__((unused)) static int equals(zmsg *frame, const void *bytes, size_t size)
{
    return Z.msg_size(frame) == size && !memcmp(Z.msg_data(frame), bytes, size);
}
