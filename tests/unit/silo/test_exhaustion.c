/* Memory runs out at the n-th allocation, of ours, SQLite's or OpenSSL's, once: what was
 * acknowledged stays, and the next request works; or the process ends itself, as the crypt room
 * does rather than go on without a hash, and the next one finds all that was acknowledged. Each n
 * in a process of its own. */
#define _GNU_SOURCE
#include "house.h"

#include "base/hex.h"
#include "crypt/crypt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_REACHED = 77, EACH_UP_TO = 150, THEN_EVERY = 23 };

/* The executable's own malloc stands before libc's for every library, too. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool armed, over;
static uint32_t left; /* allocations until the one that fails */
static bool failed;

static bool fails(void)
{
    if (!armed || over || failed || --left > 0)
        return false;
    failed = true;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : __libc_realloc(old, size);
}

#define WITHOUT_MEMORY(call)      \
    (__extension__({              \
        armed = true;             \
        status got_armed = (call); \
        armed = false;            \
        got_armed;                \
    }))

static const struct store_key data_key = {1, "thirty-two bytes of data key ..."};

struct room {
    struct silo *silo;
    struct silo_opening opening;
    struct arena arena;
    struct buffer body;
    struct fault fault;
};

/* Shared with the test: what outlives the process. */
static char (*first)[ITEM_ID_TEXT]; /* of the first memory, if it was acknowledged */

static void must(bool holds, const struct room *room, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "%s: %s\n", what, room->fault.detail);
    _exit(1);
}

static status handle(struct room *room, const char *method, const char *path, const char *body)
{
    struct route route;
    char allow[ACTION_ALLOW_MAX];
    struct silo_response response = {.body = &room->body};
    buffer_clear(&room->body);
    must(authz_route(&route, allow, &action_table, span_of_text(method), span_of_text(path),
                     &room->fault) == OK, room, path);
    struct envelope envelope = {.action = route.action, .id_count = route.id_count,
                                .user = "alice", .scopes = alice.scopes,
                                .clearance = CLEARANCE_INTERNAL, .time_us = START_US};
    struct silo_request request = {.envelope = &envelope, .action = route.action,
                                   .arena = &room->arena, .now_us = START_US,
                                   .body = span_of_text(body)};
    if (body)
        request.content_type = SPAN("application/json");
    hex_encode(envelope.tenant, SPAN_OF(room->opening.tenant_id));
    for (uint32_t i = 0; i < route.id_count; i++)
        envelope.ids[i] = request.ids[i] = route.ids[i];
    silo_begin(room->silo, START_US);
    status handled = WITHOUT_MEMORY(silo_handle(&response, room->silo, &request, &room->fault));
    if (silo_must_commit(room->silo)) {
        status committed = WITHOUT_MEMORY(silo_commit(room->silo, &room->fault));
        handled = handled == OK ? committed : handled;
    }
    return handled;
}

static void note_first(struct room *room)
{
    static const char start[] = "{\"id\":\"";
    must(room->body.length > sizeof start + ITEM_ID_TEXT, room, "no id");
    struct span id = {room->body.data + sizeof start - 1, ITEM_ID_TEXT - 1};
    span_to_text(*first, sizeof *first, id);
}

static void must_read_first(struct room *room)
{
    char path[64];
    snprintf(path, sizeof path, "/v1/memories/%s", *first);
    must(!(*first)[0] || handle(room, "GET", path, NULL) == OK, room, "acknowledged and gone");
}

static const char remember_text[] = "{\"text\":\"memory may run out\",\"metadata\":{\"a\":[1,2]}}";

static void live(struct room *room)
{
    status opened = WITHOUT_MEMORY(silo_open(&room->silo, &room->opening, &room->fault));
    if (opened != OK)
        must(silo_open(&room->silo, &room->opening, &room->fault) == OK, room, "second open");
    if (handle(room, "POST", "/v1/memories", remember_text) == OK)
        note_first(room);
    (void)(handle(room, "GET", "/v1/memories", NULL) == OK);
    (void)(handle(room, "POST", "/v1/memories/search", "{\"query\":\"memory\"}") == OK);
    (void)(handle(room, "POST", "/v1/memories", remember_text) == OK);
    over = true;
    must_read_first(room);
    must(handle(room, "POST", "/v1/memories", remember_text) == OK, room, "the next request");
    must(silo_commit(room->silo, &room->fault) == OK, room, "the last commit");
    room->silo = silo_close(room->silo);
}

static void look(struct room *room)
{
    must(silo_open(&room->silo, &room->opening, &room->fault) == OK, room, "opened again");
    must_read_first(room);
    must(silo_commit(room->silo, &room->fault) == OK, room, "commit of the read");
    room->silo = silo_close(room->silo);
}

static _Noreturn void be_without_memory(int folder, uint32_t n)
{
    struct room room = {.arena = arena_of(MIB(8)), .body = buffer_of(MIB(1))};
    must(crypt_start(&room.fault) == OK && store_start(&room.fault) == OK, &room, "start");
    room.opening = (struct silo_opening){
        .silo_fd = folder, .tenant_id = "an id of sixteen", .keys = &data_key, .key_count = 1,
        .posture = {.name = "acme", .created_at_us = START_US}};
    left = n;
    if (n)
        live(&room);
    else
        look(&room);
    _exit(failed || n == 0 ? 0 : NOT_REACHED);
}

static void empty(int folder)
{
    static const char *const names[] = {STORE_DATABASE, STORE_WAL, STORE_MAP, STORE_MAP ".new",
                                        STORE_MAP ".tmp", STORE_KEYS};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        (void)(unlinkat(folder, names[i], 0) == 0);
}

/* n 0: nothing fails, what was acknowledged is looked for. */
static int run(int folder, uint32_t n)
{
    int ended;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        be_without_memory(folder, n);
    assert_int_equal(waitpid(child, &ended, 0), child);
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : -WTERMSIG(ended);
}

static void no_allocation_that_fails_loses_a_write_or_breaks_a_silo(void **state)
{
    (void)state;
    char path[] = "/tmp/bulkhead-exhaustion-XXXXXX";
    assert_non_null(mkdtemp(path));
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), outcome = 0, after = 0;
    uint32_t n = 0, tried = 0, ended = 0;
    while (after == 0 && (outcome == 0 || outcome == -SIGABRT)) {
        n += n < EACH_UP_TO ? 1 : THEN_EVERY;
        (*first)[0] = '\0';
        outcome = run(folder, n);
        after = run(folder, 0);
        empty(folder);
        tried++;
        ended += outcome == -SIGABRT;
    }
    close(folder);
    assert_int_equal(rmdir(path), 0);
    if (outcome != NOT_REACHED || after != 0)
        fail_msg("allocation %u: ended with %d, then %d", n, outcome, after);
    print_message("%u of about %u allocations failed; %u ended the process\n", tried - 1, n, ended);
    assert_true(tried > EACH_UP_TO);
}

/* With a number: that allocation alone, in this process, for a debugger. */
int main(int argc, char **argv)
{
    first = mmap(NULL, sizeof *first, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (first == MAP_FAILED)
        return 1;
    if (argc == 2)
        be_without_memory(open(".", O_RDONLY | O_DIRECTORY), (uint32_t)strtoul(argv[1], NULL, 10));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_allocation_that_fails_loses_a_write_or_breaks_a_silo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
