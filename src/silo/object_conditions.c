#include "silo/object.h"

#include "wire/http_date.h"

#define US_PER_SECOND ((int64_t)1000000)

static struct span header_of(const struct call *call, enum relay_header kind)
{
    const struct span *headers = call->request->headers;
    return headers != NULL ? headers[kind] : (struct span){0};
}

static bool is_read(const struct call *call)
{
    return !call->request->action->mutates;
}

static void skip(struct span *text, size_t count)
{
    *text = (struct span){text->data + count, text->length - count};
}

static void skip_blanks(struct span *text)
{
    while (text->length > 0 && (text->data[0] == ' ' || text->data[0] == '\t'))
        skip(text, 1);
}

/* The next tag of a list, with its quotes. False: it is none. */
static bool next_tag(struct span *ret, bool *ret_weak, struct span *rest)
{
    *ret_weak = span_starts_with(*rest, SPAN("W/"));
    if (*ret_weak)
        skip(rest, 2);
    if (rest->length < 2 || rest->data[0] != '"')
        return false;
    struct span behind = {rest->data + 1, rest->length - 1};
    size_t length = span_find(behind, '"');
    if (length == behind.length)
        return false;
    *ret = (struct span){rest->data, length + 2};
    skip(rest, length + 2);
    skip_blanks(rest);
    return true;
}

/* Does the list name what is there? By strong comparison a weak tag never does. */
static status names(bool *ret, struct span list, const struct object_row *row, bool strong,
                    const char *header, struct fault *fault)
{
    char etag[OBJECT_ETAG_TEXT] = "";
    struct span tag;
    bool weak, found = false;
    if (row != NULL)
        object_etag(etag, &row->blob);
    if (span_is(list, "*")) {
        *ret = row != NULL;
        return OK;
    }
    do {
        if (!next_tag(&tag, &weak, &list))
            return FAIL(BAD_FIELD, fault, "%s: must be * or a list of entity tags in quotes",
                        header);
        found |= !(weak && strong) && span_is(tag, etag);
        bool more = list.length > 0;
        if (more && list.data[0] != ',')
            return FAIL(BAD_FIELD, fault, "%s: a comma is missing", header);
        if (more)
            skip(&list, 1);
        skip_blanks(&list);
    } while (list.length > 0);
    *ret = found;
    return OK;
}

static int64_t changed_seconds(const struct object_row *row)
{
    return row->updated_us / US_PER_SECOND;
}

static status failed(const char *header, struct fault *fault)
{
    return FAIL(PRECONDITION_FAILED, fault, "%s: the object is not as it says", header);
}

/* If-Match, else If-Unmodified-Since. */
static status must_be_as_known(const struct call *call, const struct object_row *row,
                               struct fault *fault)
{
    struct span match = header_of(call, RELAY_IF_MATCH);
    struct span since = header_of(call, RELAY_IF_UNMODIFIED_SINCE);
    int64_t seconds;
    bool found;
    if (match.length > 0) {
        TRY(names(&found, match, row, true, "If-Match", fault));
        return found ? OK : failed("If-Match", fault);
    }
    if (since.length == 0 || !http_date_read(&seconds, since)) /* no date: as if it were not there */
        return OK;
    return row != NULL && changed_seconds(row) <= seconds ? OK
                                                          : failed("If-Unmodified-Since", fault);
}

status object_conditions(bool *ret_unchanged, const struct call *call,
                         const struct object_row *row, struct fault *fault)
{
    struct span none = header_of(call, RELAY_IF_NONE_MATCH);
    struct span since = header_of(call, RELAY_IF_MODIFIED_SINCE);
    bool unchanged = false;
    int64_t seconds;
    TRY(must_be_as_known(call, row, fault));
    if (none.length > 0)
        TRY(names(&unchanged, none, row, false, "If-None-Match", fault));
    else if (is_read(call) && since.length > 0 && http_date_read(&seconds, since))
        unchanged = row != NULL && changed_seconds(row) <= seconds;
    if (unchanged && !is_read(call))
        return failed("If-None-Match", fault);
    *ret_unchanged = unchanged;
    return OK;
}

/* ---- parts ---- */

/* False without digits. What is larger than any object reads as UINT64_MAX. */
static bool take_number(uint64_t *ret, struct span *rest)
{
    uint64_t number = 0;
    size_t i = 0;
    for (; i < rest->length && rest->data[i] >= '0' && rest->data[i] <= '9'; i++)
        number = number > OBJECT_BYTES_MAX ? UINT64_MAX : number * 10 + (rest->data[i] - '0');
    skip(rest, i);
    *ret = number;
    return i > 0;
}

struct asked {
    bool has_first, has_last;
    uint64_t first, last; /* without first: so many from the end */
};

/* False: not one range of bytes, so it is passed over. */
static bool read_range(struct asked *ret, struct span text)
{
    static const char unit[] = "bytes=";
    for (size_t i = 0; i < sizeof unit - 1; i++)
        if (i >= text.length || (text.data[i] | (i < 5 ? 0x20 : 0)) != (uint8_t)unit[i])
            return false;
    skip(&text, sizeof unit - 1);
    skip_blanks(&text);
    ret->has_first = take_number(&ret->first, &text);
    if (text.length == 0 || text.data[0] != '-')
        return false;
    skip(&text, 1);
    ret->has_last = take_number(&ret->last, &text);
    skip_blanks(&text);
    return text.length == 0 && (ret->has_first || ret->has_last) &&
           !(ret->has_first && ret->has_last && ret->first > ret->last);
}

/* If-Range: only a strong validator will do, and a time is one only when nothing else can have
 * been stored within that second. */
static bool is_still_that(const struct call *call, const struct object_row *row)
{
    struct span wanted = header_of(call, RELAY_IF_RANGE);
    char etag[OBJECT_ETAG_TEXT];
    int64_t seconds;
    object_etag(etag, &row->blob);
    if (wanted.length == 0 || span_is(wanted, etag))
        return true;
    return http_date_read(&seconds, wanted) && seconds == changed_seconds(row) &&
           call->request->now_us / US_PER_SECOND > seconds;
}

status object_part(struct object_part *ret, const struct call *call, const struct object_row *row,
                   struct fault *fault)
{
    struct asked asked;
    struct object_part part = {false, 0, row->bytes};
    if (call->request->head_only || !read_range(&asked, header_of(call, RELAY_RANGE)) ||
        !is_still_that(call, row)) {
        *ret = part;
        return OK;
    }
    if (asked.has_first ? asked.first >= row->bytes : asked.last == 0 || row->bytes == 0)
        return FAIL(RANGE_NOT_SATISFIABLE, fault, "Range: the object has %llu bytes",
                    (unsigned long long)row->bytes);
    uint64_t most = row->bytes - 1, last = most;
    part.partial = true;
    if (!asked.has_first)
        part.from = asked.last < row->bytes ? row->bytes - asked.last : 0;
    else
        part.from = asked.first;
    if (asked.has_first && asked.has_last && asked.last < most)
        last = asked.last;
    part.length = last - part.from + 1;
    *ret = part;
    return OK;
}
