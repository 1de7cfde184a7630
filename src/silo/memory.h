/* memory.h: what agents remember of the users of a tenant: items of text with metadata, their
 * versions, their full-text indexes. This header is shared by the files memory_*.c; of other files
 * only silo.c and tenant.c include it.
 *
 * Tables: memory_users gives every user of the tenant a short number, so that an index can hold it;
 * memories has one row an item; memory_versions the texts that were replaced. One FTS5 index a
 * classification (memory_index_<classification>_<generation>) covers the texts and, as a word of
 * its own, the user: its statistics must not mix what callers may and may not see. */
#pragma once

#include "silo/fulltext.h"

enum memory_kind {
    MEMORY_EVENT,
    MEMORY_FACT,
    MEMORY_PREFERENCE,
    MEMORY_SUMMARY,
    MEMORY_EPISODE,
    MEMORY_KINDS
};
const char *memory_kind_name(enum memory_kind kind);
MUST_CHECK status memory_kind_read(enum memory_kind *ret, struct span text, const char *name,
                                   struct fault *fault);

enum { MEMORY_ID_BYTES = 16 };

struct memory_id {
    uint8_t bytes[MEMORY_ID_BYTES];
};

void memory_id_text(char text[ITEM_ID_TEXT], const struct memory_id *id);
/* False when text is no id. */
bool memory_id_read(struct memory_id *ret, struct span text);
/* Ordered by time; unguessable. */
struct memory_id memory_id_new(struct silo *silo);
/* The least id of that time: where retention cuts. */
struct memory_id memory_id_at(int64_t wall_us);
int64_t memory_id_us(const struct memory_id *id);

/* One item as stored. Spans are borrowed from its statement, or from the request. */
struct memory_row {
    int64_t n;       /* its number in the tables and indexes */
    struct memory_id id;
    int64_t user;    /* of memory_users */
    struct span user_id, session_id, agent_id; /* empty: none */
    enum memory_kind kind;
    enum clearance classification;
    int64_t version, created_us, updated_us;
    int64_t expires_us; /* by its TTL; 0: never */
    struct span metadata, text; /* metadata: JSON, empty for {} */
};

/* memory_rows.c */

/* What the store holds of this kind; cheap once known. The state of the indexes is apart, so that a
 * damaged page of theirs leaves items readable. */
MUST_CHECK status memory_know(struct silo *silo, struct fault *fault);
MUST_CHECK status memory_know_indexes(struct silo *silo, struct fault *fault);
/* Makes the tables, inside the open transaction. */
MUST_CHECK status memory_make(struct silo *silo, struct fault *fault);
MUST_CHECK status memory_make_versions(struct silo *silo, struct fault *fault);
/* Something was taken back: what is known of tables and indexes may be wrong. */
void memory_forget(struct silo *silo);

/* A statement that reads whole rows by number (parameter 1), or by id. NOT_FOUND: no such row. */
MUST_CHECK status memory_row_open(struct statement **ret, struct silo *silo, struct fault *fault);
MUST_CHECK status memory_row_get(struct memory_row *ret, struct statement *rows, int64_t n,
                                 struct fault *fault);
MUST_CHECK status memory_row_find(struct memory_row *ret, struct statement **ret_statement,
                                  struct silo *silo, const struct memory_id *id,
                                  struct fault *fault);

/* When it goes, by TTL or the tenant's retention; 0: never. */
int64_t memory_row_due_us(const struct silo *silo, const struct memory_row *row);
/* May this caller see it, now? hidden: it is there, but not for this caller. */
bool memory_row_visible(const struct call *call, const struct memory_row *row, bool *hidden);

/* The item of the path, if the caller may see it: NOT_FOUND else, and the entry knows why. */
MUST_CHECK status memory_item(struct memory_row *ret, struct statement **ret_statement,
                              struct call *call, struct fault *fault);

/* The members of the API; the object stays open. */
void memory_row_members(struct json_writer *writer, const struct silo *silo,
                        const struct memory_row *row);
/* As an object of the API; score may be NULL. */
void memory_row_put(struct json_writer *writer, const struct silo *silo,
                    const struct memory_row *row, const double *score);

/* The number of a user; NOT_FOUND: it has no item. */
MUST_CHECK status memory_user_find(int64_t *ret, struct silo *silo, struct span user_id,
                                   struct fault *fault);

/* An answer stops growing here: with the largest item on top it is still under 1 MiB. */
enum { MEMORY_PAGE_BYTES = KIB(512) };

/* memory_index.c */
extern const struct fulltext_kind memory_fulltext;

/* memory_write.c, memory_forget.c */
silo_handler memory_add, memory_update, memory_delete, memory_forget_user;
silo_replay memory_add_again;
/* The row and all that belongs to it, from every table and index. */
MUST_CHECK status memory_remove(struct silo *silo, const struct memory_row *row,
                                struct fault *fault);
MUST_CHECK status memory_expire(bool *ret_more, struct silo *silo, bool parking,
                                struct fault *fault);
int64_t memory_due_us(struct silo *silo);

/* memory_read.c, memory_search.c */
silo_handler memory_list, memory_read, memory_history, memory_search;
/* The earlier versions of an item, the newest first, as elements of the open array. */
MUST_CHECK status memory_put_versions(struct json_writer *writer, struct silo *silo,
                                      const struct memory_row *row, struct fault *fault);
MUST_CHECK status memory_count(int64_t *ret, struct silo *silo, struct fault *fault);

extern const struct store_schema memory_schema;

extern const struct store_schema memory_history_schema;

extern const struct store_schema memory_keys_schema;
