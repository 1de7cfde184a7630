/* json.h: strict JSON (RFC 8259 with the choices of RFC 7493, I-JSON), into and out of bounded
 * memory.
 *
 * Refused: duplicate names, invalid UTF-8, lone surrogates, whole numbers beyond an int64, others
 * beyond a finite double, numbers of 128 characters or more, depth over JSON_DEPTH_MAX, more than
 * JSON_MEMBERS_MAX values, a byte order mark, anything after the document. Parsed values live in
 * the caller's arena; strings are unescaped there. */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

enum json_kind {
    JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_INTEGER, JSON_DOUBLE, JSON_STRING, JSON_ARRAY,
    JSON_OBJECT
};

struct json {
    enum json_kind kind;
    uint32_t count;      /* of items or members */
    int64_t integer;     /* JSON_INTEGER: no fraction, no exponent, fits */
    double number;       /* JSON_DOUBLE, and JSON_INTEGER too */
    struct span string;  /* JSON_STRING, unescaped; may hold U+0000 */
    struct span name;    /* when it is a member: its name, unescaped */
    struct span source;  /* the bytes it was read from, borrowed: what a signature or hash covers */
    struct json *items;  /* JSON_ARRAY, JSON_OBJECT: count values */
};

/* BAD_JSON with the byte offset in the detail; TOO_LARGE where the arena or a limit is too
 * small. */
MUST_CHECK status json_parse(struct json *ret, struct arena *arena, struct span text,
                             struct fault *fault);

/* NULL when object is no object or has no such member. */
const struct json *json_member(const struct json *object, const char *name);

/* Typed access for contracts: each names the member in its fault (BAD_FIELD). The optional forms
 * leave ret as it was when the member is absent or null. Text must be without U+0000, min..max
 * bytes. */
MUST_CHECK status json_need_object(const struct json *value, const char *what, struct fault *fault);
MUST_CHECK status json_text(struct span *ret, const struct json *object, const char *name,
                            size_t min, size_t max, struct fault *fault);
MUST_CHECK status json_optional_text(struct span *ret, const struct json *object, const char *name,
                                     size_t min, size_t max, struct fault *fault);
MUST_CHECK status json_optional_integer(int64_t *ret, const struct json *object, const char *name,
                                        int64_t min, int64_t max, struct fault *fault);
MUST_CHECK status json_optional_bool(bool *ret, const struct json *object, const char *name,
                                     struct fault *fault);

/* BAD_FIELD naming the first member that is not in the NULL-terminated list. */
MUST_CHECK status json_only(const struct json *object, const char *const *names,
                            struct fault *fault);

/* Writing: appends to a buffer, commas kept by the writer; names are C literals of ours. A NULL
 * name inside an array. Nothing is checked here but the buffer's bound (buffer_check at the end).
 * Bytes that are not UTF-8 become U+FFFD, a double that is not finite becomes null. A
 * double reads back as that very double (2.0, not 2), an integer as that integer. */
struct json_writer {
    struct buffer *out;
    bool comma;
};

struct json_writer json_writer_on(struct buffer *out);
void json_open_object(struct json_writer *writer, const char *name);
void json_close_object(struct json_writer *writer);
void json_open_array(struct json_writer *writer, const char *name);
void json_close_array(struct json_writer *writer);
void json_put_string(struct json_writer *writer, const char *name, struct span value);
void json_put_text(struct json_writer *writer, const char *name, const char *value);
void json_put_integer(struct json_writer *writer, const char *name, int64_t value);
void json_put_double(struct json_writer *writer, const char *name, double value);
void json_put_bool(struct json_writer *writer, const char *name, bool value);
void json_put_null(struct json_writer *writer, const char *name);
/* Trusted JSON, as it is. */
void json_put_raw(struct json_writer *writer, const char *name, struct span json);
