/* The least that an MDP 0.1 broker (7/MDP) can be: what the others are measured against.
 *
 *     broker LIBZMQ     listens on a free port of 127.0.0.1 and prints the address
 *
 * It forwards frames as it received them, keeps idle workers of each service in a list, lets requests wait in a line per
 * service, beats once a second and forgets workers that were silent for three. It keeps no deadlines, no limits, no
 * counters and no record of who has what: that is the point of the comparison. It ends when standard input does. */
#include "loaded_zmq.h"

#define FRAMES_MAX 16
#define TABLE 4096
#define BEAT_S 1.0
#define SILENCE_S 3.0

typedef struct {
    int count;
    zmsg frames[FRAMES_MAX];
} message;

typedef struct waiting {
    struct waiting *next;
    message request;
} waiting;

typedef struct service service;

typedef struct worker {
    struct worker *next_of_slot, *before, *after; /* before and after: in the idle list of its service */
    service *service;
    int idle;
    double heard;
    size_t id_size;
    unsigned char id[256];
} worker;

struct service {
    service *next;
    worker idle; /* sentinel of a ring: the first one has been idle for longest */
    waiting *first, **end;
    size_t name_size;
    unsigned char name[256];
};

static void *router;
static worker *workers[TABLE];
static service *services;

static unsigned slot_of(const unsigned char *id, size_t size)
{
    unsigned hash = 2166136261u;
    while (size--)
        hash = (hash ^ *id++) * 16777619u;
    return hash % TABLE;
}

static worker **find_worker(zmsg *id)
{
    size_t size = Z.msg_size(id);
    worker **at = &workers[slot_of(Z.msg_data(id), size)];
    while (*at && ((*at)->id_size != size || memcmp((*at)->id, Z.msg_data(id), size)))
        at = &(*at)->next_of_slot;
    return at;
}

static service *find_service(zmsg *name)
{
    service *found = services;
    while (found && !equals(name, found->name, found->name_size))
        found = found->next;
    if (!found && Z.msg_size(name) <= sizeof found->name) {
        found = calloc(1, sizeof *found);
        found->name_size = Z.msg_size(name);
        memcpy(found->name, Z.msg_data(name), found->name_size);
        found->idle.before = found->idle.after = &found->idle;
        found->end = &found->first;
        found->next = services;
        services = found;
    }
    return found;
}

static void close_from(message *of, int index)
{
    for (; index < of->count; index++)
        Z.msg_close(&of->frames[index]);
}

static void forward(zmsg *frame, int more)
{
    if (Z.msg_send(frame, router, Z_DONTWAIT | (more ? Z_SNDMORE : 0)) < 0)
        Z.msg_close(frame);
}

static void front(const worker *to, char command, int more)
{
    Z.send(router, to->id, to->id_size, Z_DONTWAIT | Z_SNDMORE);
    Z.send(router, "", 0, Z_DONTWAIT | Z_SNDMORE);
    Z.send(router, "MDPW01", 6, Z_DONTWAIT | Z_SNDMORE);
    Z.send(router, &command, 1, Z_DONTWAIT | (more ? Z_SNDMORE : 0));
}

static void not_idle(worker *one)
{
    if (one->idle) {
        one->before->after = one->after;
        one->after->before = one->before;
        one->idle = 0;
    }
}

/* client | "" | MDPC01 | service | body...  becomes  worker | "" | MDPW01 | 2 | client | "" | body... */
static void hand_over(message *request, worker *to)
{
    not_idle(to);
    front(to, 2, 1);
    forward(&request->frames[0], 1);
    forward(&request->frames[1], 1);
    Z.msg_close(&request->frames[2]);
    Z.msg_close(&request->frames[3]);
    for (int index = 4; index < request->count; index++)
        forward(&request->frames[index], index + 1 < request->count);
}

static void now_idle(worker *one)
{
    service *of = one->service;
    waiting *next = of->first;
    if (next) {
        if (!(of->first = next->next))
            of->end = &of->first;
        hand_over(&next->request, one);
        free(next);
    } else if (!one->idle) {
        one->after = &of->idle;
        one->before = of->idle.before;
        one->before->after = one->after->before = one;
        one->idle = 1;
    }
}

static void of_client(message *request)
{
    service *asked = request->count >= 5 ? find_service(&request->frames[3]) : NULL;
    if (!asked) {
        close_from(request, 0);
    } else if (asked->idle.after != &asked->idle) {
        hand_over(request, asked->idle.after);
    } else {
        waiting *entry = malloc(sizeof *entry);
        entry->next = NULL;
        entry->request = *request; /* a zmq_msg_t may be moved as long as it is not used at its old place */
        *asked->end = entry;
        asked->end = &entry->next;
    }
}

static void forget(worker **at)
{
    worker *one = *at;
    not_idle(one);
    *at = one->next_of_slot;
    free(one);
}

/* worker | "" | MDPW01 | 3 | client | "" | body...  becomes  client | "" | MDPC01 | service | body... */
static void reply(message *from, worker *by)
{
    forward(&from->frames[4], 1);
    forward(&from->frames[5], 1);
    Z.send(router, "MDPC01", 6, Z_DONTWAIT | Z_SNDMORE);
    Z.send(router, by->service->name, by->service->name_size, Z_DONTWAIT | Z_SNDMORE);
    for (int index = 6; index < from->count; index++)
        forward(&from->frames[index], index + 1 < from->count);
    for (int index = 0; index < 4; index++)
        Z.msg_close(&from->frames[index]);
    now_idle(by);
}

static void of_worker(message *from)
{
    worker **at = find_worker(&from->frames[0]);
    worker *one = *at;
    char command = from->count > 3 && Z.msg_size(&from->frames[3]) == 1 ? *(char *)Z.msg_data(&from->frames[3]) : 0;
    if (one)
        one->heard = now_s();
    if (command == 3 && one && !one->idle && from->count > 6) {
        reply(from, one);
        return;
    }
    if (command == 1 && !one && from->count == 5 && Z.msg_size(&from->frames[0]) <= sizeof one->id) {
        one = *at = calloc(1, sizeof *one);
        one->id_size = Z.msg_size(&from->frames[0]);
        memcpy(one->id, Z.msg_data(&from->frames[0]), one->id_size);
        one->service = find_service(&from->frames[4]);
        one->heard = now_s();
        now_idle(one);
    } else if (command != 4 || !one) {
        worker stranger = {.id_size = Z.msg_size(&from->frames[0])};
        if (stranger.id_size <= sizeof stranger.id && command != 5) {
            memcpy(stranger.id, Z.msg_data(&from->frames[0]), stranger.id_size);
            front(&stranger, 5, 0);
        }
        if (one)
            forget(at);
    }
    close_from(from, 0);
}

static int read_one(void)
{
    message from = {.count = 0};
    int more = 1;
    while (more) {
        zmsg spare, *frame = from.count < FRAMES_MAX ? &from.frames[from.count] : &spare;
        Z.msg_init(frame);
        if (Z.msg_recv(frame, router, Z_DONTWAIT) < 0)
            return 0;
        more = Z.msg_more(frame);
        if (frame == &spare)
            Z.msg_close(frame);
        else
            from.count++;
    }
    if (from.count > 2 && !Z.msg_size(&from.frames[1]) && equals(&from.frames[2], "MDPC01", 6))
        of_client(&from);
    else if (from.count > 2 && !Z.msg_size(&from.frames[1]) && equals(&from.frames[2], "MDPW01", 6))
        of_worker(&from);
    else
        close_from(&from, 0);
    return 1;
}

static void beat(double now)
{
    for (int slot = 0; slot < TABLE; slot++)
        for (worker **at = &workers[slot]; *at;) {
            if ((*at)->idle && (*at)->heard + SILENCE_S < now) {
                forget(at);
            } else {
                front(*at, 4, 0);
                at = &(*at)->next_of_slot;
            }
        }
}

int main(int count, char **arguments)
{
    char endpoint[256];
    size_t size = sizeof endpoint;
    if (count != 2)
        return 2;
    load_zmq(arguments[1]);
    router = open_socket(Z.ctx_new(), Z_ROUTER);
    if (Z.bind(router, "tcp://127.0.0.1:*") || Z.getsockopt(router, Z_LAST_ENDPOINT, endpoint, &size))
        die("bind");
    puts(endpoint);
    fflush(stdout);
    for (double next = now_s() + BEAT_S;;) {
        zpoll items[] = {{.socket = router, .events = Z_POLLIN}, {.fd = 0, .events = Z_POLLIN}};
        double wait_s = next - now_s();
        Z.poll(items, 2, wait_s > 0 ? (long)(wait_s * 1000) + 1 : 0);
        if (items[1].revents)
            return 0;
        for (int read = 0; read < 1000 && read_one(); read++)
            ;
        if (now_s() >= next) {
            beat(now_s());
            next += BEAT_S;
        }
    }
}
