/* Clients and workers that do as little as possible for each request, so that the broker between them is what is busy.
 *
 *     load LIBZMQ ENDPOINT plain|credit CLIENTS WORKERS IN_FLIGHT BODY_BYTES BEAT_S
 *
 * plain: MDP 0.1 on both sides, one request in each worker's hands. credit: clients and workers of this library's
 * extension (docs/reference/extension.md): call frames with ids, deadlines and digests, tokens, and IN_FLIGHT requests
 * in each worker's hands. Everything runs in one thread; IN_FLIGHT requests are under way, spread over the clients.
 *
 * For each line on standard input, a number, it makes that many requests and prints the seconds that they took. A wrong
 * answer ends it with 1. It ends when standard input does. */
#include "loaded_zmq.h"

#define SERVICE "echo"
#define MAGIC "RLX\1"
#define SILENCE_MS 10000
#define PEERS_MAX 4096

enum { CALL_BYTES = 81, REPORT_BYTES = 24, TOKEN_BYTES = 16, DEADLINE_MS = 30000 };

static zpoll peers[PEERS_MAX + 1]; /* clients, then workers, then standard input */
static int clients, workers, credit, in_flight;
static unsigned char body[1 << 20];
static size_t body_size;
static unsigned char instance[16], life[8];
static uint64_t calls;
static double greeted, beaten, beat_s;
static long to_send, to_come;

static void put(unsigned char *at, uint64_t value, int size)
{
    while (size--) {
        at[size] = (unsigned char)value;
        value >>= 8;
    }
}

static void part(void *socket, const void *bytes, size_t size)
{
    if (Z.send(socket, bytes, size, Z_DONTWAIT | Z_SNDMORE) < 0)
        die("send");
}

static void last(void *socket, const void *bytes, size_t size)
{
    if (Z.send(socket, bytes, size, Z_DONTWAIT) < 0)
        die("send");
}

/* The number of frames read into `frames`, which the caller closes; 0 if nothing is there. */
static int receive(void *socket, zmsg *frames, int room, int flags)
{
    for (int count = 0;;) {
        Z.msg_init(&frames[count]);
        if (Z.msg_recv(&frames[count], socket, flags) < 0)
            return 0;
        count++;
        if (!Z.msg_more(&frames[count - 1]))
            return count;
        if (count == room) {
            fputs("a message of too many frames\n", stderr);
            exit(1);
        }
    }
}

static void close_all(zmsg *frames, int count)
{
    while (count--)
        Z.msg_close(&frames[count]);
}

static void greet(void *socket, unsigned char role, int number)
{
    unsigned char hello[30] = MAGIC "\x30";
    zmsg frames[8];
    zpoll wait = {.socket = socket, .events = Z_POLLIN};
    hello[5] = role;
    /* Each connection is a process of its own, as far as the broker can tell. */
    put(instance + 12, (uint64_t)number, 4);
    memcpy(hello + 6, instance, sizeof instance);
    put(hello + 22, 0, 8);
    part(socket, "", 0);
    part(socket, "MDPC01", 6);
    part(socket, "mmi.reliable", 12);
    last(socket, hello, sizeof hello);
    greeted = now_s();
    if (Z.poll(&wait, 1, SILENCE_MS) < 1 || receive(socket, frames, 8, 0) != 7 || !equals(&frames[3], "200", 3)) {
        fputs("the broker does not speak our extension\n", stderr);
        exit(1);
    }
    memcpy(life, Z.msg_data(&frames[5]), sizeof life);
    close_all(frames, 7);
}

static void ready(void *socket)
{
    if (!credit) {
        part(socket, "", 0);
        part(socket, "MDPW01", 6);
        part(socket, "\1", 1);
        last(socket, SERVICE, strlen(SERVICE));
        return;
    }
    /* Behind magic and kind an array in MessagePack: instance, last life, tokens, credit, services, size limit. */
    unsigned char frame[64] = MAGIC "\x31\x96\xc4\x10", *at = frame + 8;
    memcpy(at, instance, 16);
    memcpy(at + 16, "\xc4\x08\0\0\0\0\0\0\0\0\x90\xcd", 12);
    put(at + 28, (uint64_t)in_flight, 2);
    memcpy(at + 30, "\x91\x92\xc4\x04" SERVICE "\xc2\0", 10);
    part(socket, "MDPW02", 6);
    part(socket, "\1", 1);
    part(socket, SERVICE, strlen(SERVICE));
    last(socket, frame, (size_t)(at + 40 - frame));
}

static void beat(void)
{
    for (int index = clients; index < clients + workers; index++) {
        if (!credit)
            part(peers[index].socket, "", 0);
        part(peers[index].socket, credit ? "MDPW02" : "MDPW01", 6);
        last(peers[index].socket, credit ? "\5" : "\4", 1);
    }
}

static void ask(void *socket)
{
    to_send--;
    if (credit) {
        unsigned char call[CALL_BYTES] = MAGIC "\1\0\0\1";
        uint64_t ms = (uint64_t)((now_s() - greeted) * 1000);
        put(call + 8, ++calls, 16);
        memcpy(call + 12, instance, 4); /* ids of one process and another must differ */
        memcpy(call + 24, instance, 16);
        memcpy(call + 40, life, 8);
        put(call + 48, ms + DEADLINE_MS, 8);
        put(call + 56, ms, 8);
        memset(call + 64, 0xdd, 16);
        part(socket, call, sizeof call);
        part(socket, "", 0);
        part(socket, "MDPC02", 6);
        part(socket, "\1", 1);
    } else {
        part(socket, "", 0);
        part(socket, "MDPC01", 6);
    }
    part(socket, SERVICE, strlen(SERVICE));
    last(socket, body, body_size);
}

static void of_broker_to_client(void *socket)
{
    zmsg frames[8];
    for (int count; (count = receive(socket, frames, 8, Z_DONTWAIT));) {
        if (!equals(&frames[count - 1], body, body_size) || !equals(&frames[count - 2], SERVICE, strlen(SERVICE))) {
            fputs("an answer that is not the echo of a request\n", stderr);
            exit(1);
        }
        close_all(frames, count);
        to_come--;
        if (to_send > 0)
            ask(socket);
    }
}

static void of_broker_to_worker(void *socket)
{
    zmsg frames[8];
    for (int count; (count = receive(socket, frames, 8, Z_DONTWAIT));) {
        int at = credit ? 1 : 2; /* of the command */
        if (count > at + 3 && equals(&frames[at], "\2", 1)) {
            if (credit) {
                unsigned char report[REPORT_BYTES];
                memcpy(report, Z.msg_data(&frames[2]), TOKEN_BYTES);
                memcpy(report + TOKEN_BYTES, MAGIC "\x20\1\0\0", 8);
                part(socket, "MDPW02", 6);
                part(socket, "\4", 1);
                part(socket, report, sizeof report);
            } else {
                part(socket, "", 0);
                part(socket, "MDPW01", 6);
                part(socket, "\3", 1);
                Z.msg_send(&frames[at + 1], socket, Z_DONTWAIT | Z_SNDMORE);
            }
            part(socket, "", 0);
            for (int index = at + 3; index < count; index++)
                Z.msg_send(&frames[index], socket, Z_DONTWAIT | (index + 1 < count ? Z_SNDMORE : 0));
        } else if (!equals(&frames[at], credit ? "\5" : "\4", 1)) {
            fputs("the broker let a worker go\n", stderr);
            exit(1);
        }
        close_all(frames, count);
    }
}

/* Wait for something and take it in; whether standard input has something. */
static int turn(void)
{
    int all = clients + workers;
    Z.poll(peers, all + 1, 100);
    for (int index = 0; index < all; index++)
        if (peers[index].revents & Z_POLLIN)
            (index < clients ? of_broker_to_client : of_broker_to_worker)(peers[index].socket);
    if (now_s() > beaten + beat_s) {
        beaten = now_s();
        beat();
    }
    return peers[all].revents;
}

static double make(long requests)
{
    double began = now_s(), heard = began;
    to_send = to_come = requests;
    for (long number = 0; number < in_flight && to_send > 0; number++)
        ask(peers[number % clients].socket);
    for (long before = to_come; to_come; before = to_come) {
        turn();
        if (to_come != before)
            heard = now_s();
        else if (now_s() > heard + SILENCE_MS / 1000) {
            fputs("no answer any more\n", stderr);
            exit(1);
        }
    }
    return now_s() - began;
}

int main(int count, char **arguments)
{
    if (count != 9)
        return 2;
    load_zmq(arguments[1]);
    credit = !strcmp(arguments[3], "credit");
    clients = atoi(arguments[4]);
    workers = atoi(arguments[5]);
    in_flight = atoi(arguments[6]);
    body_size = (size_t)atol(arguments[7]);
    beat_s = atof(arguments[8]);
    if (clients < 1 || workers < 1 || clients + workers > PEERS_MAX || body_size > sizeof body)
        return 2;
    memset(body, 'x', body_size);
    FILE *random = fopen("/dev/urandom", "r");
    if (!random || fread(instance, 1, sizeof instance, random) != sizeof instance)
        die("/dev/urandom");
    void *context = Z.ctx_new();
    for (int index = 0; index < clients + workers; index++) {
        void *socket = open_socket(context, Z_DEALER);
        if (Z.connect(socket, arguments[2]))
            die("connect");
        if (credit)
            greet(socket, index < clients ? 1 : 2, index);
        if (index >= clients)
            ready(socket);
        peers[index] = (zpoll){.socket = socket, .events = Z_POLLIN};
    }
    peers[clients + workers] = (zpoll){.fd = 0, .events = Z_POLLIN};
    puts("ready");
    fflush(stdout);
    for (;;) {
        char line[64];
        if (!turn())
            continue;
        if (!fgets(line, sizeof line, stdin))
            return 0;
        printf("%.6f\n", make(atol(line)));
        fflush(stdout);
    }
}
