#include "house.h"
#include "silo/knowledge.h"

#include <stdlib.h>

/* Random operations on documents beside a plain model of what they should do, the silo parked,
 * woken and crashed between them; and twins, of which one has thousands of things that its callers
 * may not see. */

#define KNOWLEDGE (SCOPE_SET(SCOPE_KNOWLEDGE_READ) | SCOPE_SET(SCOPE_KNOWLEDGE_WRITE))

static const struct who callers[CLEARANCE_COUNT] = {
    {"guest", "", KNOWLEDGE, CLEARANCE_PUBLIC},
    {"ann", "", KNOWLEDGE, CLEARANCE_INTERNAL},
    {"mia", "", KNOWLEDGE, CLEARANCE_CONFIDENTIAL},
    {"chief", "", KNOWLEDGE, CLEARANCE_RESTRICTED},
};

enum { IDS = 6, WORDS = 8, ROUNDS = 500, TEAMS = 3 };

struct item {
    bool exists;
    uint32_t words; /* bit set: which of the words its text has */
    uint32_t team, version;
};

struct model {
    struct item items[IDS][CLEARANCE_COUNT];
    uint64_t seed;
};

static uint32_t draw(struct model *model, uint32_t below)
{
    model->seed = model->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(model->seed >> 33) % below;
}

static const char *path_to(uint32_t id)
{
    static char path[64];
    snprintf(path, sizeof path, "/v1/documents/doc%u", id);
    return path;
}

static void put(struct house *house, struct model *model, uint32_t id, uint32_t who)
{
    char body[600];
    uint32_t words = draw(model, 1u << WORDS), team = draw(model, TEAMS), version = 0;
    uint32_t k = draw(model, who + 1);
    int at = snprintf(body, sizeof body, "{\"classification\":\"%s\",\"metadata\":{\"team\":%u},"
                      "\"chunk\":{\"bytes\":200,\"overlap\":50},\"text\":\"start",
                      clearance_name((enum clearance)k), team);
    for (uint32_t i = 0; i < WORDS; i++)
        if (words & 1u << i)
            at += snprintf(body + at, sizeof body - (size_t)at, " word%u", i);
    at += snprintf(body + at, sizeof body - (size_t)at, " %0*d\"}", (int)draw(model, 250), 0);
    assert_ok(house, ask(house, &callers[who], "PUT", path_to(id), "", body));
    bool any = false;
    for (uint32_t i = 0; i <= who; i++) {
        struct item *item = &model->items[id][i];
        any |= item->exists;
        if (item->exists && i <= k && item->version > version)
            version = item->version;
        *item = (struct item){0};
    }
    assert_int_equal(house->http_status, any ? 200 : 201);
    assert_int_equal(answer_integer(&house->answer, "version"), version + 1);
    model->items[id][k] = (struct item){true, words, team, version + 1};
}

static void drop(struct house *house, struct model *model, uint32_t id, uint32_t who)
{
    bool any = false;
    for (uint32_t i = 0; i <= who; i++) {
        any |= model->items[id][i].exists;
        model->items[id][i] = (struct item){0};
    }
    assert_status(house, ask(house, &callers[who], "DELETE", path_to(id), "", NULL),
                  any ? OK : NOT_FOUND);
}

static void check_item(struct house *house, const struct model *model, uint32_t id, uint32_t who)
{
    const struct item *seen = NULL;
    uint32_t k = 0;
    for (uint32_t i = 0; i <= who; i++)
        if (model->items[id][i].exists)
            seen = &model->items[id][k = i];
    assert_status(house, ask(house, &callers[who], "GET", path_to(id), "", NULL),
                  seen != NULL ? OK : NOT_FOUND);
    if (seen == NULL)
        return;
    assert_string_equal(answer_text(house, &house->answer, "classification"),
                        clearance_name((enum clearance)k));
    assert_int_equal(answer_integer(&house->answer, "version"), seen->version);
    const char *text = answer_text(house, &house->answer, "text");
    for (uint32_t i = 0; i < WORDS; i++) {
        char word[16];
        snprintf(word, sizeof word, " word%u ", i);
        assert_int_equal(strstr(text, word) != NULL, (seen->words >> i) & 1);
    }
}

/* Every document of the model that has the word and the team is among the hits, no other is; the
 * hits come in pages of two. */
static void check_search(struct house *house, struct model *model, uint32_t who)
{
    uint32_t word = draw(model, WORDS), team = draw(model, TEAMS), seen = 0, expected = 0;
    char body[900], cursor[600] = "";
    double last = 1e9;
    for (uint32_t page = 0; page < 40; page++) {
        snprintf(body, sizeof body, "{\"query\":\"WORD%u\",\"limit\":2,\"filter\":{\"team\":"
                 "{\"$ne\":%u}}%s}", word, team, cursor);
        assert_ok(house, ask(house, &callers[who], "POST", "/v1/search", "", body));
        const struct json *data = answer_data(house), *next;
        for (uint32_t i = 0; i < data->count; i++) {
            const struct json *hit = &data->items[i];
            enum clearance k;
            uint32_t id = (uint32_t)(answer_text(house, hit, "document_id")[3] - '0');
            assert_int_equal(clearance_read(&k, span_of_text(answer_text(house, hit,
                             "classification")), "k", &house->fault), OK);
            assert_true(k <= who);
            const struct item *item = &model->items[id][k];
            assert_true(item->exists && (item->words & 1u << word) && item->team != team);
            assert_true(json_member(hit, "score")->number <= last);
            last = json_member(hit, "score")->number;
            seen |= 1u << (id * CLEARANCE_COUNT + k);
        }
        next = json_member(&house->answer, "next_cursor");
        if (next->kind == JSON_NULL)
            break;
        assert_int_equal(data->count, 2);
        snprintf(cursor, sizeof cursor, ",\"cursor\":\"%.*s\"", SPAN_ARG(next->string));
    }
    for (uint32_t id = 0; id < IDS; id++)
        for (uint32_t k = 0; k <= who; k++)
            if (model->items[id][k].exists && (model->items[id][k].words & 1u << word) &&
                model->items[id][k].team != team)
                expected |= 1u << (id * CLEARANCE_COUNT + k);
    assert_int_equal(seen, expected);
}

static void check_list(struct house *house, const struct model *model, uint32_t who)
{
    uint32_t count = 0;
    assert_ok(house, ask(house, &callers[who], "GET", "/v1/documents", "prefix=doc", NULL));
    for (uint32_t id = 0; id < IDS; id++) {
        bool any = false;
        for (uint32_t k = 0; k <= who; k++)
            any |= model->items[id][k].exists;
        if (!any)
            continue;
        char name[16];
        snprintf(name, sizeof name, "doc%u", id);
        assert_string_equal(answer_text(house, answer_item(house, count++), "id"), name);
    }
    assert_int_equal(answer_data(house)->count, count);
}

static void documents_do_what_a_plain_model_does(void **state)
{
    struct house *house = *state;
    struct model *model = calloc(1, sizeof *model);
    model->seed = 7;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t id = draw(model, IDS), who = draw(model, CLEARANCE_COUNT);
        uint32_t what = draw(model, 20);
        if (what < 8)
            put(house, model, id, who);
        else if (what < 11)
            drop(house, model, id, who);
        else if (what == 11 && round % 3 == 0)
            house_reopen(house);
        else if (what == 12 && round % 3 == 0)
            house_crash(house);
        else if (what == 13)
            house_expire(house, true);
        check_item(house, model, draw(model, IDS), draw(model, CLEARANCE_COUNT));
        check_search(house, model, draw(model, CLEARANCE_COUNT));
        check_list(house, model, draw(model, CLEARANCE_COUNT));
        arena_reset(&house->arena);
    }
    free(model);
}

/* ---- twins ---- */

static void both(struct house *one, struct house *other, const struct who *who,
                 const char *method, const char *path, const char *query, const char *body)
{
    status left = ask(one, who, method, path, query, body);
    status right = ask(other, who, method, path, query, body);
    assert_int_equal(left, right);
    if (left != OK) {
        assert_string_equal(one->fault.detail, other->fault.detail);
        return;
    }
    assert_int_equal(one->http_status, other->http_status);
    const struct json *cursor = json_member(&one->answer, "next_cursor");
    struct span a = buffer_span(&one->body), b = buffer_span(&other->body);
    assert_int_equal(a.length, b.length);
    if (cursor != NULL && cursor->kind == JSON_STRING) /* sealed: its length says nothing either */
        a.length -= cursor->string.length + 2;
    assert_memory_equal(a.data, b.data, a.length);
}

static void hide(struct house *house, uint32_t from, uint32_t count)
{
    char path[64], body[400];
    for (uint32_t i = from; i < from + count; i++) {
        snprintf(path, sizeof path, "/v1/documents/hidden%u", i);
        if (i == from) /* of the same name as one that will be seen */
            snprintf(path, sizeof path, "/v1/documents/item%u", i / 10);
        snprintf(body, sizeof body, "{\"title\":\"zebra\",\"classification\":\"%s\","
                 "\"metadata\":{\"n\":%u},\"text\":\"zebra lion tiger %u zebra zebra\"}",
                 i % 2 ? "restricted" : "confidential", i, i % 7);
        assert_ok(house, ask(house, &callers[3], "PUT", path, "", body));
        arena_reset(&house->arena);
    }
}

static void twins_answer_alike_whatever_one_of_them_hides(void **state)
{
    struct house *one = *state, *other;
    void *second;
    char path[64], body[1200], cursor[2][600] = {"", ""};
    assert_int_equal(house_build(&second), 0);
    other = second;
    for (uint32_t i = 0; i < 120; i++) {
        hide(other, i * 10, 10);
        snprintf(path, sizeof path, "/v1/documents/item%u", i);
        snprintf(body, sizeof body, "{\"classification\":\"%s\",\"metadata\":{\"n\":%u},\"text\":"
                 "\"%s zebra and %s number%u\"}", i % 3 ? "internal" : "public", i,
                 i % 5 ? "a" : "the lion", i % 2 ? "tiger tiger" : "nothing", i);
        both(one, other, &callers[1], "PUT", path, "", body);
        if (i % 10 == 9)
            both(one, other, &callers[1], "DELETE", path, "", NULL);
        if (i % 10 == 8)
            both(one, other, &callers[1], "DELETE", "/v1/documents/hidden1", "", NULL);
        both(one, other, &callers[1], "GET", path, "", NULL);
        both(one, other, &callers[0], "GET", path, "", NULL);
        both(one, other, &callers[1], "POST", "/v1/search", "",
             "{\"query\":\"zebra lion tiger\",\"filter\":{\"n\":{\"$gt\":3}}}");
        both(one, other, &callers[0], "POST", "/v1/search", "", "{\"query\":\"the tiger\"}");
        both(one, other, &callers[1], "GET", "/v1/documents", "prefix=item&limit=500", NULL);
        arena_reset(&one->arena);
        arena_reset(&other->arena);
    }
    for (int page = 0; page < 20; page++) {
        struct house *const houses[] = {one, other};
        struct span answers[2];
        for (int i = 0; i < 2; i++) {
            snprintf(body, sizeof body, "{\"query\":\"lion zebra\",\"limit\":7%s}", cursor[i]);
            assert_ok(houses[i], ask(houses[i], &callers[1], "POST", "/v1/search", "", body));
            const struct json *next = json_member(&houses[i]->answer, "next_cursor");
            answers[i] = json_member(&houses[i]->answer, "data")->source;
            cursor[i][0] = '\0';
            if (next->kind == JSON_STRING)
                snprintf(cursor[i], sizeof cursor[i], ",\"cursor\":\"%.*s\"",
                         SPAN_ARG(next->string));
        }
        assert_true(span_equal(answers[0], answers[1]));
        hide(other, 2000 + (uint32_t)page * 10, 10); /* between two pages */
    }
    house_pull_down(&second);
}

/* ---- lists in memory, walks of the index ---- */

/* Few of these words are in most documents, many in few. */
static int write_words(char *out, size_t size, struct model *model, uint32_t count)
{
    int at = 0;
    for (uint32_t i = 0; i < count; i++)
        at += snprintf(out + at, size - (size_t)at, "%sword%u", i > 0 ? " " : "",
                       draw(model, 1 + draw(model, 1 + draw(model, 60))));
    return at;
}

static void put_random(struct house *house, struct model *model, uint32_t i)
{
    char path[64], body[4096], title[200], text[2000];
    uint32_t who = draw(model, CLEARANCE_COUNT);
    write_words(title, sizeof title, model, 1 + draw(model, 4));
    write_words(text, sizeof text, model, 1 + draw(model, 120));
    snprintf(path, sizeof path, "/v1/documents/d%u", i);
    snprintf(body, sizeof body, "{\"classification\":\"%s\",\"title\":\"%s\",\"metadata\":{"
             "\"team\":%u},\"chunk\":{\"bytes\":200},\"text\":\"# %s\\n\\n%s\"}",
             clearance_name((enum clearance)who), title, i % TEAMS, title, text);
    assert_ok(house, ask(house, &callers[3], "PUT", path, "", body));
}

/* One page with so many rows in memory at most; the cursor goes on. */
static struct span page_with(struct house *house, uint32_t rows_max, const struct who *who,
                             const char *question, char cursor[600])
{
    char body[1400];
    house->silo->knowledge.fulltext.postings.rows_max = rows_max;
    snprintf(body, sizeof body, "{%s%s}", question, cursor);
    assert_ok(house, ask(house, who, "POST", "/v1/search", "", body));
    const struct json *next = json_member(&house->answer, "next_cursor");
    cursor[0] = '\0';
    if (next->kind == JSON_STRING)
        snprintf(cursor, 600, ",\"cursor\":\"%.*s\"", SPAN_ARG(next->string));
    return arena_copy(&house->arena, json_member(&house->answer, "data")->source);
}

static void lists_in_memory_find_what_walks_of_the_index_find_to_the_last_bit(void **state)
{
    static const uint32_t rows_max[] = {0, 150, 500, 1};
    struct house *house = *state;
    struct model model = {.seed = 11};
    char words[200], question[400];
    uint32_t pages = 0, in_memory = 0;
    for (uint32_t i = 0; i < 150; i++)
        put_random(house, &model, i);
    for (int round = 0; round < 200; round++) {
        const struct who *who = &callers[draw(&model, CLEARANCE_COUNT)];
        char cursors[2][600] = {"", ""};
        write_words(words, sizeof words, &model, 1 + draw(&model, 8));
        snprintf(question, sizeof question, "\"query\":\"%s\",\"limit\":%u%s", words,
                 1 + draw(&model, 12), round % 3 ? "" : ",\"filter\":{\"team\":{\"$ne\":1}}");
        for (int page = 0; page < 3; page++, pages++) {
            struct span walked = page_with(house, 1, who, question, cursors[0]);
            struct span listed = page_with(house, rows_max[draw(&model, 4)], who, question,
                                           cursors[1]);
            in_memory += house->silo->knowledge.fulltext.postings.list_count > 0;
            assert_true(span_equal(walked, listed));
            assert_int_equal(cursors[0][0], cursors[1][0]);
            if (cursors[0][0] == '\0')
                break;
        }
        if (round % 5 == 0)
            put_random(house, &model, draw(&model, 150));
        if (round % 40 == 9)
            house_expire(house, true);
        arena_reset(&house->arena);
    }
    assert_true(pages > 300 && in_memory > 100);
}

static void lists_are_given_back_when_idle_and_bounded_before(void **state)
{
    struct house *house = *state;
    struct model model = {.seed = 5};
    struct postings *postings = &house->silo->knowledge.fulltext.postings;
    char words[200], question[400], cursor[600] = "";
    for (uint32_t i = 0; i < 60; i++)
        put_random(house, &model, i);
    for (int round = 0; round < 100; round++) {
        write_words(words, sizeof words, &model, 3);
        snprintf(question, sizeof question, "\"query\":\"%s\"", words);
        cursor[0] = '\0';
        page_with(house, 200, &callers[3], question, cursor);
        assert_true(postings->rows <= 200);
        arena_reset(&house->arena);
    }
    assert_true(postings->list_count > 0);
    silo_trim(house->silo);
    assert_int_equal(postings->list_count + postings->rows, 0);
}

/* ---- pages, poison ---- */

static void pages_neither_repeat_nor_skip_whatever_is_added(void **state)
{
    struct house *house = *state;
    char path[64], body[1200], cursor[600] = "";
    bool seen[60] = {0};
    uint32_t count = 0;
    for (int i = 0; i < 60; i++) {
        snprintf(path, sizeof path, "/v1/documents/d%d", i);
        snprintf(body, sizeof body, "{\"text\":\"zebra%s%s\"}", i % 2 ? " lion" : "",
                 i % 7 ? "" : " and words and more words");
        assert_ok(house, ask(house, &callers[1], "PUT", path, "", body));
    }
    for (int page = 0; page < 20; page++) {
        snprintf(body, sizeof body, "{\"query\":\"zebra lion\",\"limit\":9%s}", cursor);
        assert_ok(house, ask(house, &callers[1], "POST", "/v1/search", "", body));
        const struct json *data = answer_data(house);
        const struct json *next = json_member(&house->answer, "next_cursor");
        for (uint32_t i = 0; i < data->count; i++) {
            long id = strtol(answer_text(house, &data->items[i], "document_id") + 1, NULL, 10);
            assert_true(id >= 0 && id < 60 && !seen[id]);
            seen[id] = true;
            count++;
        }
        if (next->kind == JSON_NULL)
            break;
        snprintf(cursor, sizeof cursor, ",\"cursor\":\"%.*s\"", SPAN_ARG(next->string));
        for (int i = 0; i < 5; i++) {
            snprintf(path, sizeof path, "/v1/documents/new%d", page * 5 + i);
            assert_ok(house, ask(house, &callers[1], "PUT", path, "",
                                 "{\"text\":\"zebra lion lion lion\"}"));
        }
    }
    assert_int_equal(count, 60);
    snprintf(body, sizeof body, "{\"query\":\"zebra\",\"limit\":9%s}", cursor);
    if (cursor[0] != '\0')
        assert_status(house, ask(house, &callers[1], "POST", "/v1/search", "", body), BAD_FIELD);
}

/* Fills the pattern into the text of a document and puts it. */
static status put_pattern(struct house *house, const char *pattern, size_t times)
{
    size_t length = strlen(pattern);
    char *body = malloc(length * times + 64);
    size_t at = (size_t)snprintf(body, 64, "{\"text\":\"");
    for (size_t i = 0; i < times; i++, at += length)
        memcpy(body + at, pattern, length);
    memcpy(body + at, "\"}", 3);
    status done = ask(house, &callers[1], "PUT", "/v1/documents/poison", "", body);
    free(body);
    return done;
}

static void poison_is_stored_and_found_or_refused(void **state)
{
    static const struct {
        const char *pattern;
        size_t times;
        status wanted;
    } cases[] = {
        {"word ", 200000, OK}, {"x", 1000000, OK}, {"# h\\n", 100000, OK},
        {"\\n", 300000, OK}, {"\\u0001", 300000, OK}, {"\\b", 300000, OK},
        {"\xff", 10, BAD_JSON}, {"\\ud800", 1, BAD_JSON}, {"", 0, BAD_FIELD},
        {"aaaaaaaa", (DOCUMENT_TEXT_MAX >> 3) + 1, BAD_FIELD}, {"a\\u0000", 1, BAD_FIELD},
    };
    struct house *house = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_status(house, put_pattern(house, cases[i].pattern, cases[i].times),
                      cases[i].wanted);
        if (cases[i].wanted == OK)
            assert_ok(house, ask(house, &callers[1], "GET", "/v1/documents/poison", "", NULL));
        arena_reset(&house->arena);
    }
    assert_ok(house, ask(house, &callers[1], "DELETE", "/v1/documents/poison", "", NULL));
    assert_ok(house, ask(house, &callers[1], "POST", "/v1/search", "", "{\"query\":\"word h x\"}"));
    assert_int_equal(answer_data(house)->count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(documents_do_what_a_plain_model_does, house_build,
                                        house_pull_down),
        cmocka_unit_test_setup_teardown(twins_answer_alike_whatever_one_of_them_hides,
                                        house_build, house_pull_down),
        cmocka_unit_test_setup_teardown(
            lists_in_memory_find_what_walks_of_the_index_find_to_the_last_bit, house_build,
            house_pull_down),
        cmocka_unit_test_setup_teardown(lists_are_given_back_when_idle_and_bounded_before,
                                        house_build, house_pull_down),
        cmocka_unit_test_setup_teardown(pages_neither_repeat_nor_skip_whatever_is_added,
                                        house_build, house_pull_down),
        cmocka_unit_test_setup_teardown(poison_is_stored_and_found_or_refused, house_build,
                                        house_pull_down),
    };
    return cmocka_run_group_tests_name("silo knowledge model", tests, NULL, NULL);
}
