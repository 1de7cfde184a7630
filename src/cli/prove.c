/* prove.c: `bulkhead prove`: assume that an attacker runs code in a cell of this running node.
 * Two throwaway tenants are made: one is the attacker's, whose cells are hostile ones, the other
 * is the neighbour, awake and with something to steal. Afterwards everybody else must be unhurt,
 * and both are erased. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/limits.h"
#include "base/secret.h"
#include "cli/cli.h"
#include "cli/prove.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

enum {
    ANSWER_MS = 10 * 1000,
    NEIGHBOUR_EVERY_US = 2 * 1000 * 1000,
    WRAPPED_MAX = 512,
    SERVICES_MAX = 2 + GATEWAYS_MAX,
    LINES_MAX = 64 * 1024,
    TOKEN_TTL_SECONDS = 1800,
    TOKEN_TEXT = TOKEN_MAX + 1,
};

#define MARKER "kept by the neighbour"

struct service {
    char name[24];
    int64_t pid, restarts;
};

struct party { /* one of the two tenants */
    char name[TENANT_NAME_MAX + 1], id[TENANT_ID_TEXT], token[TOKEN_TEXT];
    int64_t uid;
    bool made;
};

struct prove {
    struct cli *cli;
    struct party attacker, neighbour;
    char listen[64], keys[PATH_MAX], data[PATH_MAX];
    int64_t supervisor_pid, neighbour_pid;
    bool one_id; /* all jails share one uid */
    struct service services[SERVICES_MAX];
    uint32_t service_count;
    bool symlink, device, hard_link;
    char wrapped[2 * WRAPPED_MAX + 1];
    struct prove_results results;
    int clients[PROVE_ATTEMPTS_MAX]; /* connection + 1 of the request in flight; 0: none */
    struct buffer line;
    uint32_t asked, answered;
    int64_t next_ask_us, slowest_us;
    char trouble[256]; /* what went wrong beside the attempts */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static void note(struct prove *prove, const char *what)
{
    if (!prove->trouble[0])
        snprintf(prove->trouble, sizeof prove->trouble, "%s", what);
}

/* ---- the node as `status` tells it ---- */

typedef status take_answer(struct prove *prove, const struct json *answer, void *context,
                           struct fault *fault);

static status call(struct prove *prove, const char *verb, struct span arguments,
                   take_answer *take, void *context, struct fault *fault)
{
    struct buffer text;
    struct json answer;
    status called = client_call(&text, prove->cli, verb, arguments, -1, fault);
    struct arena arena = arena_of(64 * text.length + 65536);
    if (called == OK)
        called = json_parse(&answer, &arena, buffer_span(&text), fault);
    if (called == OK)
        called = json_need_object(&answer, verb, fault);
    if (called == OK && take)
        called = take(prove, &answer, context, fault);
    arena_free(&arena);
    buffer_free(&text);
    return called;
}

static status text_of(char *ret, size_t size, const struct json *object, const char *name,
                      struct fault *fault)
{
    struct span text;
    TRY(json_text(&text, object, name, 1, size - 1, fault));
    if (!span_to_text(ret, size, text))
        return FAIL(BAD_FIELD, fault, "%s: holds a NUL", name);
    return OK;
}

static status take_services(struct prove *prove, const struct json *answer, void *context,
                            struct fault *fault)
{
    const struct json *list = json_member(answer, "services");
    (void)context;
    prove->service_count = list && list->kind == JSON_ARRAY ? list->count : 0;
    if (prove->service_count < 3 || prove->service_count > SERVICES_MAX)
        return FAIL(BAD_FIELD, fault, "status: services: not as expected");
    for (uint32_t i = 0; i < prove->service_count; i++) {
        struct service *service = &prove->services[i];
        *service = (struct service){0};
        TRY(text_of(service->name, sizeof service->name, &list->items[i], "name", fault));
        TRY(json_optional_integer(&service->pid, &list->items[i], "pid", 1, INT32_MAX, fault));
        TRY(json_optional_integer(&service->restarts, &list->items[i], "restarts", 0, UINT32_MAX,
                                  fault));
        if (service->pid == 0)
            return FAIL(UNAVAILABLE, fault, "%s does not run", service->name);
    }
    return OK;
}

static status take_node(struct prove *prove, const struct json *answer, void *context,
                        struct fault *fault)
{
    char identity[64];
    TRY(take_services(prove, answer, context, fault));
    TRY(text_of(prove->listen, sizeof prove->listen, answer, "listen", fault));
    TRY(text_of(identity, sizeof identity, answer, "identity", fault));
    prove->one_id = strcmp(identity, "one uid a tenant") != 0;
    return json_optional_integer(&prove->supervisor_pid, answer, "supervisor_pid", 1, INT32_MAX,
                                 fault);
}

static int64_t pid_of(const struct prove *prove, const char *name)
{
    for (uint32_t i = 0; i < prove->service_count; i++)
        if (strcmp(prove->services[i].name, name) == 0)
            return prove->services[i].pid;
    return 0;
}

static status take_neighbours_pid(struct prove *prove, const struct json *answer, void *context,
                                  struct fault *fault)
{
    const struct json *cells = json_member(answer, "cells");
    (void)context;
    for (uint32_t i = 0; cells && i < cells->count; i++) {
        char id[TENANT_ID_TEXT];
        struct fault ignored;
        if (text_of(id, sizeof id, &cells->items[i], "tenant_id", &ignored) == OK
            && strcmp(id, prove->neighbour.id) == 0)
            return json_optional_integer(&prove->neighbour_pid, &cells->items[i], "pid", 1,
                                         INT32_MAX, fault);
    }
    return FAIL(UNAVAILABLE, fault, "status shows no cell of the neighbour");
}

/* Who was there before must be there still: the same processes, restarted by nobody. */
static status take_bystanders(struct prove *prove, const struct json *answer, void *context,
                              struct fault *fault)
{
    struct service before[SERVICES_MAX];
    uint32_t count = prove->service_count;
    int64_t supervisor = 0;
    (void)context;
    memcpy(before, prove->services, sizeof before);
    TRY(json_optional_integer(&supervisor, answer, "supervisor_pid", 1, INT32_MAX, fault));
    TRY(take_services(prove, answer, NULL, fault));
    if (supervisor != prove->supervisor_pid || count != prove->service_count)
        return FAIL(CONFLICT, fault, "the supervisor is another than before");
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(before[i].name, prove->services[i].name) != 0
            || before[i].pid != prove->services[i].pid
            || before[i].restarts != prove->services[i].restarts)
            return FAIL(CONFLICT, fault, "%.20s was pid %lld and is pid %lld", before[i].name,
                        (long long)before[i].pid, (long long)prove->services[i].pid);
    return OK;
}

/* ---- the two tenants ---- */

static status take_party(struct prove *prove, const struct json *answer, void *context,
                         struct fault *fault)
{
    struct party *party = context;
    (void)prove;
    TRY(text_of(party->id, sizeof party->id, answer, "id", fault));
    return json_optional_integer(&party->uid, answer, "uid", 1, UINT32_MAX, fault);
}

static status take_token(struct prove *prove, const struct json *answer, void *context,
                         struct fault *fault)
{
    struct party *party = context;
    (void)prove;
    return text_of(party->token, sizeof party->token, answer, "token", fault);
}

static status make_party(struct prove *prove, struct party *party, const char *letter,
                         struct fault *fault)
{
    uint8_t random[6], storage[256];
    char digits[2 * sizeof random + 1];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return FAIL(INTERNAL, fault, "no random bytes");
    hex_encode(digits, SPAN_OF(random));
    snprintf(party->name, sizeof party->name, "prove-%s-%s", letter, digits);
    buffer_printf(&arguments, "{\"name\":\"%s\"}", party->name);
    party->made = true; /* also when the answer is lost */
    TRY(call(prove, "tenant.create", buffer_span(&arguments), take_party, party, fault));
    buffer_clear(&arguments);
    buffer_printf(&arguments, "{\"name\":\"%s\",\"user\":\"prove\",\"ttl_seconds\":%d}",
                  party->name, TOKEN_TTL_SECONDS);
    return call(prove, "token.mint", buffer_span(&arguments), take_token, party, fault);
}

static bool erase_party(struct prove *prove, struct party *party)
{
    uint8_t storage[256];
    struct fault fault = {0};
    struct buffer arguments = buffer_over(storage, sizeof storage);
    if (!party->made)
        return true;
    secret_wipe(party->token, sizeof party->token);
    buffer_printf(&arguments, "{\"name\":\"%s\"}", party->name);
    status erased = call(prove, "tenant.erase", buffer_span(&arguments), NULL, NULL, &fault);
    if (erased == OK || erased == NOT_FOUND)
        return true;
    fprintf(stderr, "bulkhead: %s was not erased: %s\n", party->name, fault.detail);
    return false;
}

static status neighbour_request(struct buffer *answer, const struct prove *prove,
                                const char *method, struct span body, int want,
                                struct fault *fault)
{
    int fd;
    TRY(prove_http_send(&fd, prove->listen, method, "/v1/memories", prove->neighbour.token, body,
                        fault));
    TRY(prove_http_read(answer, fd, ANSWER_MS, fault));
    int code = prove_http_status(buffer_span(answer));
    if (code != want)
        return FAIL(UNAVAILABLE, fault, "the neighbour answered %d, not %d", code, want);
    return OK;
}

static status wake_neighbour(struct prove *prove, struct fault *fault)
{
    _cleanup_buffer_ struct buffer answer = buffer_of(KIB(256));
    TRY(neighbour_request(&answer, prove, "POST", SPAN("{\"text\":\"" MARKER "\"}"), 201, fault));
    return call(prove, "status", SPAN("{}"), take_neighbours_pid, NULL, fault);
}

static bool holds(struct span text, const char *word)
{
    struct span wanted = span_of_text(word);
    for (; text.length >= wanted.length; text.data++, text.length--)
        if (span_starts_with(text, wanted))
            return true;
    return false;
}

/* All the while the neighbour is served as if nothing happened. */
static void ask_neighbour(struct prove *prove)
{
    _cleanup_buffer_ struct buffer answer = buffer_of(KIB(256));
    struct fault fault = {0};
    int64_t began_us = clock_monotonic_us();
    prove->asked++;
    status got = neighbour_request(&answer, prove, "GET", (struct span){0}, 200, &fault);
    int64_t took_us = clock_monotonic_us() - began_us;
    prove->next_ask_us = clock_monotonic_us() + NEIGHBOUR_EVERY_US;
    if (took_us > prove->slowest_us)
        prove->slowest_us = took_us;
    if (got == OK && holds(buffer_span(&answer), MARKER))
        prove->answered++;
    else
        note(prove, got == OK ? "the neighbour's item is gone" : fault.detail);
}

/* ---- what an operator's mistake could put into the attacker's silo ---- */

static void read_wrapped(struct prove *prove, int neighbour)
{
    uint8_t bytes[WRAPPED_MAX];
    _cleanup_close_ int file = openat(neighbour, "silo.keys", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, bytes, sizeof bytes);
    if (length > 0)
        hex_encode(prove->wrapped, (struct span){bytes, (size_t)length});
}

/* What cannot be planted is told of as not run. */
static void plant(struct prove *prove)
{
    char path[PATH_MAX + 64];
    const uid_t uid = (uid_t)prove->attacker.uid;
    snprintf(path, sizeof path, "%s/silos/%s", prove->data, prove->attacker.id);
    _cleanup_close_ int own = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/silos/%s", prove->data, prove->neighbour.id);
    _cleanup_close_ int other = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (own < 0 || other < 0)
        return;
    read_wrapped(prove, other);
    prove->symlink = !symlinkat("/etc", own, "prove-symlink");
    prove->device = !mknodat(own, "prove-device", S_IFCHR | 0666, makedev(1, 5))
                 && !fchownat(own, "prove-device", uid, uid, AT_SYMLINK_NOFOLLOW);
    prove->hard_link = !prove->one_id
                    && !linkat(other, "silo.keys", own, "prove-hard-link", 0);
}

static status put_arguments(struct buffer *out, const struct prove *prove, struct fault *fault)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", prove->attacker.name);
    json_open_object(&writer, "target");
    json_put_text(&writer, "neighbour", prove->neighbour.id);
    json_put_integer(&writer, "neighbour_pid", prove->neighbour_pid);
    json_put_integer(&writer, "neighbour_uid", prove->neighbour.uid);
    json_put_integer(&writer, "supervisor_pid", prove->supervisor_pid);
    json_put_integer(&writer, "kms_pid", pid_of(prove, "kms"));
    json_put_integer(&writer, "control_pid", pid_of(prove, "control"));
    json_put_integer(&writer, "gateway_pid", pid_of(prove, "gateway-0"));
    json_put_text(&writer, "data", prove->data);
    json_put_text(&writer, "keys", prove->keys);
    json_put_bool(&writer, "symlink", prove->symlink);
    json_put_bool(&writer, "device", prove->device);
    json_put_bool(&writer, "hard_link", prove->hard_link);
    json_put_text(&writer, "wrapped", prove->wrapped);
    json_close_object(&writer);
    json_close_object(&writer);
    return buffer_check(out, "target", fault);
}

/* ---- the battery ---- */

/* In a process of its own: the call returns when the last attempt has ended. */
static _Noreturn void run_battery(struct prove *prove, struct span arguments, int lines, int why)
{
    struct buffer answer;
    struct fault fault;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (client_call(&answer, prove->cli, "prove", arguments, lines, &fault) == OK)
        _exit(0);
    size_t length = strnlen(fault.detail, sizeof fault.detail);
    ssize_t ignored = write(why, fault.detail, length);
    (void)ignored;
    _exit(1);
}

static void begin_request(struct prove *prove, uint32_t attempt)
{
    struct fault fault;
    int fd;
    if (prove->clients[attempt])
        return;
    if (prove_http_send(&fd, prove->listen, "GET", "/v1/memories", prove->attacker.token,
                        (struct span){0}, &fault) != OK)
        note(prove, fault.detail);
    else
        prove->clients[attempt] = fd + 1;
}

static void end_request(struct prove *prove, uint32_t attempt)
{
    _cleanup_buffer_ struct buffer answer = buffer_of(KIB(256));
    struct fault fault;
    if (!prove->clients[attempt])
        return;
    struct prove_result *result = &prove->results.attempts[attempt];
    status read = prove_http_read(&answer, prove->clients[attempt] - 1, ANSWER_MS, &fault);
    prove->clients[attempt] = 0;
    prove_judge_client(result, buffer_span(&answer));
    if (read != OK) {
        result->client_held = false;
        snprintf(result->client, sizeof result->client, "%.150s", fault.detail);
    }
}

static void take_line(struct prove *prove, struct span line)
{
    enum prove_event event;
    uint32_t attempt;
    struct fault fault;
    if (prove_take(&prove->results, &event, &attempt, line, &fault) != OK)
        note(prove, fault.detail);
    else if (event == PROVE_WANTS_REQUEST)
        begin_request(prove, attempt);
    else if (event == PROVE_ENDED)
        end_request(prove, attempt);
}

static void take_lines(struct prove *prove)
{
    for (;;) {
        struct span text = buffer_span(&prove->line);
        size_t length = 0;
        while (length < text.length && text.data[length] != '\n')
            length++;
        if (length == text.length)
            return;
        take_line(prove, (struct span){text.data, length});
        buffer_consume(&prove->line, length + 1);
    }
}

static void read_results(struct prove *prove, int lines)
{
    prove->line = buffer_of(LINES_MAX);
    while (!interrupted) {
        struct pollfd readable = {.fd = lines, .events = POLLIN};
        if (clock_monotonic_us() >= prove->next_ask_us)
            ask_neighbour(prove);
        int ready = poll(&readable, 1, 500);
        if (ready <= 0)
            continue;
        uint8_t *room = buffer_reserve(&prove->line, KIB(4));
        ssize_t count = room ? read(lines, room, KIB(4)) : 0;
        if (count <= 0)
            break;
        buffer_advance(&prove->line, (size_t)count);
        take_lines(prove);
    }
    buffer_free(&prove->line);
}

static status wait_battery(pid_t battery, int why, struct fault *fault)
{
    char detail[sizeof fault->detail] = "";
    int ended;
    if (interrupted)
        kill(battery, SIGTERM);
    ssize_t length = read(why, detail, sizeof detail - 1);
    while (waitpid(battery, &ended, 0) < 0 && errno == EINTR)
        continue;
    if (interrupted)
        return FAIL(CLOSED, fault, "interrupted");
    if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0)
        return FAIL(UNAVAILABLE, fault, "the battery: %s",
                    length > 0 ? detail : "ended without a word");
    return OK;
}

static status run(struct prove *prove, struct fault *fault)
{
    uint8_t storage[8192];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    int lines[2], why[2];
    TRY(put_arguments(&arguments, prove, fault));
    if (pipe2(lines, O_CLOEXEC) || pipe2(why, O_CLOEXEC))
        return FAIL(INTERNAL, fault, "pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t battery = fork();
    if (battery < 0)
        return FAIL(INTERNAL, fault, "fork: %s", strerror(errno));
    if (battery == 0) {
        close(lines[0]);
        close(why[0]);
        run_battery(prove, buffer_span(&arguments), lines[1], why[1]);
    }
    close(lines[1]);
    close(why[1]);
    read_results(prove, lines[0]);
    close(lines[0]); /* a battery that still runs ends with its next line */
    status ended = wait_battery(battery, why[0], fault);
    close(why[0]);
    return ended;
}

static status prepare(struct prove *prove, struct fault *fault)
{
    if (!realpath(prove->cli->data, prove->data))
        return FAIL(UNAVAILABLE, fault, "--data: %s", strerror(errno));
    if (!prove->keys[0]
        && snprintf(prove->keys, sizeof prove->keys, "%s.keys", prove->data)
               >= (int)sizeof prove->keys)
        return FAIL(BAD_FIELD, fault, "--data: the path is too long");
    TRY(call(prove, "status", SPAN("{}"), take_node, NULL, fault));
    TRY(make_party(prove, &prove->attacker, "a", fault));
    TRY(make_party(prove, &prove->neighbour, "b", fault));
    TRY(wake_neighbour(prove, fault));
    plant(prove);
    return OK;
}

/* ---- the report ---- */

struct totals {
    uint32_t attempts, held, failed, skipped;
};

static struct totals count(const struct prove_results *results)
{
    struct totals totals = {0};
    for (uint32_t i = 0; i < results->count; i++) {
        const struct prove_result *result = &results->attempts[i];
        bool skipped = prove_skipped(result), held = !skipped && prove_held(result);
        totals.attempts += !skipped;
        totals.skipped += skipped;
        totals.held += held;
        totals.failed += !skipped && !held;
    }
    return totals;
}

static void print_result(const struct prove_result *result, const char *group_wall)
{
    char what[2 * PROVE_TEXT];
    prove_describe(what, result);
    if (prove_skipped(result))
        printf("  not run  %s: %s\n", result->name, result->skipped);
    else if (prove_held(result) && strcmp(result->wall, group_wall) == 0)
        printf("  held     %-58s %s\n", result->name, result->expect);
    else if (prove_held(result))
        printf("  held     %-58s %s: %s\n", result->name, result->expect, result->wall);
    else {
        fputs("  FAILED   ", stdout);
        cli_put_text(span_of_text(result->begun ? result->name : "an attempt without a name"));
        printf(": should be %s; was: ", result->begun ? result->expect : "-");
        cli_put_text(span_of_text(what));
        putchar('\n');
    }
}

static void print_report(const struct prove *prove, struct totals totals)
{
    const char *group = "", *wall = "";
    for (uint32_t i = 0; i < prove->results.count; i++) {
        const struct prove_result *result = &prove->results.attempts[i];
        if (strcmp(group, result->group) != 0) {
            wall = result->wall;
            printf("%s%s (%s, where nothing else is said)\n", i ? "\n" : "", result->group, wall);
        }
        group = result->group;
        print_result(result, wall);
    }
    printf("\nthe neighbour meanwhile   %u of %u requests answered, the slowest in %lld ms\n",
           prove->answered, prove->asked, (long long)(prove->slowest_us / 1000));
    if (prove->trouble[0]) {
        fputs("FAILED                    ", stdout);
        cli_put_text(span_of_text(prove->trouble));
        putchar('\n');
    } else {
        puts("the others                supervisor, kms, control, gateways: the same processes, "
             "none restarted");
    }
    printf("%u attempts, %u held, %u FAILED", totals.attempts, totals.held, totals.failed);
    if (totals.skipped)
        printf(", %u not run", totals.skipped);
    putchar('\n');
}

static void put_result(struct json_writer *writer, uint32_t number,
                       const struct prove_result *result)
{
    char what[2 * PROVE_TEXT];
    prove_describe(what, result);
    json_open_object(writer, NULL);
    json_put_integer(writer, "attempt", number);
    json_put_text(writer, "name", result->name);
    json_put_text(writer, "group", result->group);
    json_put_text(writer, "wall", result->wall);
    json_put_text(writer, "expect", result->expect);
    if (prove_skipped(result)) {
        json_put_text(writer, "skipped", result->skipped);
    } else {
        json_put_text(writer, "got", what);
        json_put_bool(writer, "held", prove_held(result));
    }
    json_close_object(writer);
}

static void print_json(const struct prove *prove, struct totals totals, bool passed)
{
    _cleanup_buffer_ struct buffer out = buffer_of(MIB(4));
    struct json_writer writer = json_writer_on(&out);
    json_open_object(&writer, NULL);
    json_put_bool(&writer, "passed", passed);
    json_put_integer(&writer, "attempts", totals.attempts);
    json_put_integer(&writer, "held", totals.held);
    json_put_integer(&writer, "failed", totals.failed);
    json_put_integer(&writer, "not_run", totals.skipped);
    json_open_object(&writer, "neighbour");
    json_put_integer(&writer, "requests", prove->asked);
    json_put_integer(&writer, "answered", prove->answered);
    json_put_integer(&writer, "slowest_us", prove->slowest_us);
    json_close_object(&writer);
    if (prove->trouble[0])
        json_put_text(&writer, "trouble", prove->trouble);
    json_open_array(&writer, "results");
    for (uint32_t i = 0; i < prove->results.count; i++)
        put_result(&writer, i, &prove->results.attempts[i]);
    json_close_array(&writer);
    json_close_object(&writer);
    fwrite(out.data, 1, out.length, stdout);
    putchar('\n');
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    const struct sigaction action = {.sa_handler = on_signal};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int finish(struct prove *prove, status ran, const struct fault *why)
{
    struct fault fault = {0};
    if (ran == OK) {
        ask_neighbour(prove);
        if (call(prove, "status", SPAN("{}"), take_bystanders, NULL, &fault) != OK)
            note(prove, fault.detail);
    }
    bool erased = erase_party(prove, &prove->attacker);
    erased = erase_party(prove, &prove->neighbour) && erased;
    if (ran != OK && prove->results.count == 0)
        return cli_refused(why->detail);
    if (ran != OK)
        note(prove, why->detail);
    struct totals totals = count(&prove->results);
    bool passed = ran == OK && erased && !prove->trouble[0] && totals.attempts > 0
               && totals.failed == 0;
    if (prove->cli->json)
        print_json(prove, totals, passed);
    else
        print_report(prove, totals);
    return passed ? EXIT_DONE : EXIT_REFUSED;
}

int command_prove(struct cli *cli)
{
    static struct prove prove;
    struct fault fault = {0};
    const char *keys = cli_option(cli, "--keys");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    if (keys && !realpath(keys, prove.keys))
        return cli_usage("--keys: there is no such directory");
    prove.cli = cli;
    catch_signals();
    status ran = prepare(&prove, &fault);
    if (ran == OK)
        ran = run(&prove, &fault);
    return finish(&prove, ran, &fault);
}
