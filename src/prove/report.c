/* report.c: the tables as one list, and the lines about an attempt. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "wire/json.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048, SIGNALLED = 128 };

static const struct battery *const batteries[] = {
    &battery_system_calls, &battery_files,   &battery_supervisor,
    &battery_key_service,  &battery_gateway, &battery_resources,
};

static const struct {
    const char *text;
    int exits[2];
    const char *killed_for;
    enum got_kind got;   /* of a process that is to live */
    const char *client;
} expectations[EXPECTATIONS] = {
    [EXPECT_SIGSYS] = {"killed by SIGSYS", {SIGNALLED + SIGSYS}, "", GOT_SURVIVED, NULL},
    [EXPECT_NO_32_BIT] = {"killed by SIGSYS (SIGSEGV where the kernel has no 32-bit calls)",
                          {SIGNALLED + SIGSYS, SIGNALLED + SIGSEGV}, "", GOT_SURVIVED, NULL},
    [EXPECT_SIGSEGV] = {"dies alone by SIGSEGV", {SIGNALLED + SIGSEGV}, "", GOT_SURVIVED, NULL},
    [EXPECT_KILLED] = {"killed by the supervisor, nothing came back", {SIGNALLED + SIGKILL},
                       "protocol", GOT_SURVIVED, NULL},
    [EXPECT_LOST] = {"killed by the supervisor", {SIGNALLED + SIGKILL}, "", GOT_SURVIVED, NULL},
    [EXPECT_ERRNO] = {"refused with", {0}, "", GOT_ERRNO, NULL},
    [EXPECT_REFUSED] = {"answered with nothing but the refusal", {0}, "", GOT_REFUSED, NULL},
    [EXPECT_CLOSED] = {"the channel ends, nothing came back", {0}, "", GOT_CLOSED, NULL},
    [EXPECT_CLIENT_503] = {"the relay ends, its client gets 503", {0}, "", GOT_CLOSED, "503"},
    [EXPECT_CLIENT_CUT] = {"the relay ends, its client gets no more than was announced", {0}, "",
                           GOT_CLOSED, "cut"},
    [EXPECT_BOUNDED] = {"goes no further than it may", {0}, "", GOT_BOUNDED, NULL},
};

struct got got_survived(const char *format, ...)
{
    struct got got = {.kind = GOT_SURVIVED};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(got.text, sizeof got.text, format, arguments);
    va_end(arguments);
    return got;
}

struct got got_bounded(const char *format, ...)
{
    struct got got = {.kind = GOT_BOUNDED};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(got.text, sizeof got.text, format, arguments);
    va_end(arguments);
    return got;
}

struct got got_skipped(const char *why)
{
    struct got got = {.kind = GOT_SKIPPED};
    snprintf(got.text, sizeof got.text, "%s", why);
    return got;
}

struct got got_errno(int error)
{
    struct got got = {.kind = GOT_ERRNO, .value = error};
    const char *name = strerrorname_np(error);
    snprintf(got.text, sizeof got.text, "%s", name ? name : "an unknown error");
    return got;
}

const struct attempt *attempt_find(uint32_t number, const struct battery **ret_battery)
{
    for (size_t i = 0; i < sizeof batteries / sizeof *batteries; i++) {
        if (number < batteries[i]->count) {
            *ret_battery = batteries[i];
            return &batteries[i]->attempts[number];
        }
        number -= (uint32_t)batteries[i]->count;
    }
    return NULL;
}

/* One write: a line is never mixed with another, a pipe takes so much at once. */
static status put_line(const struct hostile *self, struct buffer *line, struct fault *fault)
{
    buffer_put_text(line, "\n");
    TRY(buffer_check(line, "result", fault));
    if (write(self->results, line->data, line->length) != (ssize_t)line->length)
        return FAIL(CLOSED, fault, "nobody reads the results");
    return OK;
}

static void put_expectation(struct json_writer *writer, const struct attempt *attempt)
{
    char text[160];
    const char *base = expectations[attempt->expect].text;
    if (attempt->expect == EXPECT_ERRNO)
        snprintf(text, sizeof text, "%s %s", base, strerrorname_np(attempt->value));
    else if (attempt->expect == EXPECT_REFUSED)
        snprintf(text, sizeof text, "%s %s", base,
                 attempt->value == CORRUPT ? "corrupt" : status_code((status)attempt->value));
    else
        snprintf(text, sizeof text, "%s", base);
    json_put_text(writer, "expect", text);
    json_open_array(writer, "exits");
    for (int i = 0; i < 2; i++)
        if (i == 0 || expectations[attempt->expect].exits[i])
            json_put_integer(writer, NULL, expectations[attempt->expect].exits[i]);
    json_close_array(writer);
    json_put_text(writer, "killed_for", expectations[attempt->expect].killed_for);
    if (expectations[attempt->expect].client)
        json_put_text(writer, "client", expectations[attempt->expect].client);
}

status report_begin(const struct hostile *self, const struct attempt *attempt,
                    const struct battery *battery, struct fault *fault)
{
    uint8_t storage[LINE_MAX_BYTES];
    struct buffer line = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&line);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "attempt", self->attempt);
    json_put_text(&writer, "name", attempt->name);
    json_put_text(&writer, "group", battery->group);
    json_put_text(&writer, "wall", attempt->wall ? attempt->wall : battery->wall);
    put_expectation(&writer, attempt);
    json_close_object(&writer);
    return put_line(self, &line, fault);
}

static bool is_as_expected(const struct attempt *attempt, const struct got *got)
{
    enum got_kind due = expectations[attempt->expect].got;
    if (due == GOT_SURVIVED || got->kind != due)
        return false; /* who should be dead has nothing to say */
    bool valued = attempt->expect == EXPECT_ERRNO || attempt->expect == EXPECT_REFUSED;
    return !valued || got->value == attempt->value;
}

status report_end(const struct hostile *self, const struct attempt *attempt,
                  const struct got *got, struct fault *fault)
{
    uint8_t storage[LINE_MAX_BYTES];
    struct buffer line = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&line);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "attempt", self->attempt);
    if (got->kind == GOT_SKIPPED) {
        json_put_text(&writer, "skipped", got->text);
    } else {
        json_put_text(&writer, "got", got->text);
        json_put_bool(&writer, "held", is_as_expected(attempt, got));
    }
    json_close_object(&writer);
    return put_line(self, &line, fault);
}

void report_wants_request(const struct hostile *self)
{
    uint8_t storage[128];
    struct buffer line = buffer_over(storage, sizeof storage);
    struct fault ignored;
    buffer_printf(&line, "{\"attempt\":%u,\"wants\":\"request\"}", self->attempt);
    if (put_line(self, &line, &ignored) != OK)
        return; /* no request will come: the attempt fails by itself */
}
