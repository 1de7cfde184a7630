/* prove_results.c: one attempt is told of in up to four lines, by the hostile process and by the
 * supervisor. Only together they make a verdict: the process alone could say anything. */
#define _GNU_SOURCE
#include "cli/prove.h"

#include "wire/json.h"

#include <string.h>

enum { LINE_MAX_BYTES = 4096 };

static status take_text(char *ret, size_t size, const struct json *line, const char *name,
                        struct fault *fault)
{
    struct span text;
    TRY(json_text(&text, line, name, 0, size - 1, fault));
    if (!span_to_text(ret, size, text))
        return FAIL(BAD_FIELD, fault, "%s: holds a NUL", name);
    return OK;
}

static status take_exits(struct prove_result *result, const struct json *line,
                         struct fault *fault)
{
    const struct json *exits = json_member(line, "exits");
    if (!exits || exits->kind != JSON_ARRAY || exits->count < 1 || exits->count > 2)
        return FAIL(BAD_FIELD, fault, "exits: must be one or two numbers");
    for (uint32_t i = 0; i < exits->count; i++) {
        if (exits->items[i].kind != JSON_INTEGER || exits->items[i].integer < 0
            || exits->items[i].integer > 255)
            return FAIL(BAD_FIELD, fault, "exits: must be one or two numbers");
        result->exits_due[i] = (int)exits->items[i].integer;
    }
    result->exit_count = exits->count;
    return OK;
}

/* How it is to end is said before the attempt is made, and once. */
static status take_begin(struct prove_result *result, const struct json *line,
                         struct fault *fault)
{
    struct span client = {0};
    if (result->begun)
        return FAIL(BAD_FIELD, fault, "name: this attempt has begun before");
    TRY(take_text(result->name, sizeof result->name, line, "name", fault));
    TRY(take_text(result->group, sizeof result->group, line, "group", fault));
    TRY(take_text(result->wall, sizeof result->wall, line, "wall", fault));
    TRY(take_text(result->expect, sizeof result->expect, line, "expect", fault));
    TRY(take_text(result->killed_for_due, sizeof result->killed_for_due, line, "killed_for",
                  fault));
    TRY(take_exits(result, line, fault));
    TRY(json_optional_text(&client, line, "client", 1, sizeof result->client_due - 1, fault));
    if (!span_to_text(result->client_due, sizeof result->client_due, client))
        return FAIL(BAD_FIELD, fault, "client: holds a NUL");
    result->begun = true;
    return OK;
}

static status take_exit(struct prove_result *result, const struct json *line,
                        struct fault *fault)
{
    int64_t code = -1;
    TRY(json_optional_integer(&code, line, "exit", 0, 255, fault));
    TRY(take_text(result->killed_for, sizeof result->killed_for, line, "killed_for", fault));
    if (result->ended)
        return FAIL(BAD_FIELD, fault, "exit: this attempt has ended before");
    result->exit_code = (int)code;
    result->ended = true;
    return OK;
}

static status take_got(struct prove_result *result, const struct json *line, struct fault *fault)
{
    const struct json *held = json_member(line, "held");
    TRY(take_text(result->got, sizeof result->got, line, "got", fault));
    if (!held || (held->kind != JSON_TRUE && held->kind != JSON_FALSE) || result->spoken)
        return FAIL(BAD_FIELD, fault, "held: must be a boolean, once");
    result->held_said = held->kind == JSON_TRUE;
    result->spoken = true;
    return OK;
}

static status take_parsed(struct prove_results *results, enum prove_event *ret_event,
                          uint32_t *ret_attempt, const struct json *line, struct fault *fault)
{
    int64_t number = -1;
    TRY(json_need_object(line, "line", fault));
    TRY(json_optional_integer(&number, line, "attempt", 0, PROVE_ATTEMPTS_MAX - 1, fault));
    if (number < 0)
        return FAIL(BAD_FIELD, fault, "attempt: is missing");
    struct prove_result *result = &results->attempts[number];
    enum prove_event event = PROVE_OTHER;
    if (json_member(line, "name")) {
        TRY(take_begin(result, line, fault));
    } else if (json_member(line, "exit")) {
        TRY(take_exit(result, line, fault));
        event = PROVE_ENDED;
    } else if (json_member(line, "wants")) {
        event = PROVE_WANTS_REQUEST;
    } else if (json_member(line, "skipped")) {
        TRY(take_text(result->skipped, sizeof result->skipped, line, "skipped", fault));
    } else {
        TRY(take_got(result, line, fault));
    }
    if (results->count <= (uint32_t)number)
        results->count = (uint32_t)number + 1;
    *ret_event = event;
    *ret_attempt = (uint32_t)number;
    return OK;
}

status prove_take(struct prove_results *results, enum prove_event *ret_event,
                  uint32_t *ret_attempt, struct span line, struct fault *fault)
{
    struct arena arena = arena_of(16 * LINE_MAX_BYTES);
    struct json parsed;
    status taken = json_parse(&parsed, &arena, line, fault);
    if (taken == OK)
        taken = take_parsed(results, ret_event, ret_attempt, &parsed, fault);
    arena_free(&arena);
    return taken;
}

static bool exit_is_due(const struct prove_result *result)
{
    for (uint32_t i = 0; i < result->exit_count; i++)
        if (result->exits_due[i] == result->exit_code)
            return strcmp(result->killed_for, result->killed_for_due) == 0;
    return false;
}

bool prove_skipped(const struct prove_result *result)
{
    return result->begun && result->skipped[0] && !result->spoken && result->ended
        && result->exit_code == 0;
}

bool prove_held(const struct prove_result *result)
{
    if (!result->begun || !result->ended || result->skipped[0] || !exit_is_due(result))
        return false;
    if (result->client_due[0] && !result->client_held)
        return false;
    bool to_live = result->exits_due[0] == 0;
    return to_live ? result->spoken && result->held_said : !result->spoken;
}

static void describe_end(char text[PROVE_TEXT], const struct prove_result *result)
{
    if (!result->ended)
        snprintf(text, PROVE_TEXT, "nothing is known of its end");
    else if (result->killed_for[0])
        snprintf(text, PROVE_TEXT, "killed by the supervisor");
    else if (result->exit_code > 128)
        snprintf(text, PROVE_TEXT, "killed by SIG%s", sigabbrev_np(result->exit_code - 128)
                 ? sigabbrev_np(result->exit_code - 128) : "?");
    else
        snprintf(text, PROVE_TEXT, "exit %d", result->exit_code);
}

void prove_describe(char text[2 * PROVE_TEXT], const struct prove_result *result)
{
    char end[PROVE_TEXT];
    describe_end(end, result);
    struct buffer out = buffer_over((uint8_t *)text, 2 * PROVE_TEXT - 1);
    const bool plain = result->spoken && result->ended && result->exit_code == 0;
    if (result->spoken)
        buffer_put_text(&out, result->got);
    if (!plain)
        buffer_printf(&out, "%s%s", result->spoken ? ", " : "", end);
    if (result->client[0])
        buffer_printf(&out, "; its client: %.100s", result->client);
    text[out.length] = '\0';
}

static bool holds(struct span text, const char *word)
{
    struct span wanted = span_of_text(word);
    for (; text.length >= wanted.length; text.data++, text.length--)
        if (span_starts_with(text, wanted))
            return true;
    return false;
}

void prove_judge_client(struct prove_result *result, struct span answer)
{
    static const char problem[] = "HTTP/1.1 503 ", good[] = "HTTP/1.1 200 ";
    bool refused = span_starts_with(answer, span_of_text(problem));
    /* every body and header that the attempts smuggle in says "hostile" */
    bool clean = !holds(answer, "hostile") && !holds(answer, "Hostile");
    bool cut = strcmp(result->client_due, "cut") == 0
            && (answer.length == 0 || span_starts_with(answer, span_of_text(good)));
    result->client_held = clean && (refused || cut);
    if (!clean)
        snprintf(result->client, sizeof result->client, "got what the cell smuggled in");
    else if (answer.length < 12)
        snprintf(result->client, sizeof result->client, "no answer");
    else
        snprintf(result->client, sizeof result->client, "%.3s", (const char *)answer.data + 9);
}
