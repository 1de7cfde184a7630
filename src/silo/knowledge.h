/* knowledge.h: what a tenant's agents may look up: documents, divided into chunks, and one
 * full-text index a classification over these. This header is shared by the files knowledge_*.c; of
 * other files only silo.c includes it.
 *
 * A document is unique per (id, classification): so no conflict tells a caller of one above its
 * clearance (polyinstantiation). Its text is stored once, in its chunks. Nothing that a caller may
 * see depends on what is above its clearance: numbers of chunks count within their classification,
 * lists and searches do not touch the rows of others.
 *
 * The number of a chunk: classification (2 bits at 60), its place in the order of that
 * classification (52 bits at 8, from 1), and the length of its text in LENGTH_UNIT bytes (8 bits),
 * where ranking finds it. A document's number is that of its first chunk, with length 0; its chunks
 * are those up to `last`. */
#pragma once

#include "silo/chunk.h"
#include "silo/fulltext.h"

enum {
    LENGTH_BITS = 8,
    LENGTH_UNIT = 16, /* bytes */
    CLASSIFICATION_SHIFT = 60,
    DOCUMENT_ID_MAX = ACTION_ID_MAX,
    KNOWLEDGE_PAGE_BYTES = MIB(4), /* an answer stops growing here */
};
static_assert(CHUNK_BYTES_MAX <= LENGTH_UNIT * 255, "a length fits its byte");

struct document_row {
    int64_t n, last; /* numbers of its chunks, see above */
    enum clearance classification;
    struct span id, title, metadata, user_id; /* metadata: JSON, empty for {} */
    int64_t version, bytes, created_us, updated_us;
};

/* knowledge_rows.c */

MUST_CHECK status knowledge_know(struct silo *silo, struct fault *fault);
MUST_CHECK status knowledge_make(struct silo *silo, struct fault *fault);
void knowledge_forget(struct silo *silo);
/* Of what is there, by classification; valid in silo->knowledge.totals. */
MUST_CHECK status knowledge_know_totals(struct silo *silo, struct fault *fault);
MUST_CHECK status knowledge_save_totals(struct silo *silo, enum clearance classification,
                                        const struct knowledge_totals *totals,
                                        struct fault *fault);

int64_t chunk_number(enum clearance classification, int64_t place, uint32_t length);
int64_t chunk_place(int64_t n);
int64_t document_chunks(const struct document_row *row);

/* Reads of whole rows: by (classification, id). NOT_FOUND. */
MUST_CHECK status document_find(struct document_row *ret, struct statement **ret_statement,
                                struct silo *silo, enum clearance classification, struct span id,
                                struct fault *fault);
/* Rows are borrowed from the statement; NOT_FOUND: the last was read. CORRUPT. */
MUST_CHECK status document_step(struct document_row *ret, struct statement *rows,
                                struct fault *fault);
/* A statement for document_of: the document a chunk belongs to. */
MUST_CHECK status document_open(struct statement **ret, struct silo *silo, struct fault *fault);
MUST_CHECK status document_of(struct document_row *ret, struct statement *rows, int64_t n,
                              struct fault *fault);
/* Rows of one classification in the order of their ids, from that one on or after it. */
MUST_CHECK status document_list(struct statement **ret, struct silo *silo,
                                enum clearance classification, struct span from, bool after,
                                struct fault *fault);

/* The members of the API but "text"; the object stays open. */
void document_put_members(struct json_writer *writer, const struct document_row *row);

MUST_CHECK status no_such_document(struct call *call, struct span id, struct fault *fault);

/* knowledge_index.c */
extern const struct fulltext_kind knowledge_fulltext;
/* Rebuilds and rewrites indexes, as silo_expire says. */
MUST_CHECK status knowledge_tend(bool *ret_more, struct silo *silo, bool parking,
                                 struct fault *fault);
int64_t knowledge_due_us(struct silo *silo); /* wall; 0: never */

/* knowledge_read.c: the text, put together again. CORRUPT, also when out does not hold it. */
MUST_CHECK status document_text(struct buffer *out, struct silo *silo,
                                const struct document_row *row, struct fault *fault);

/* knowledge_write.c, knowledge_read.c, knowledge_search.c */
silo_handler knowledge_put, knowledge_batch, knowledge_delete;
silo_replay knowledge_batch_again;
silo_handler knowledge_read, knowledge_list;
silo_handler knowledge_search;

extern const struct store_schema knowledge_schema;
