#include "silo/evidence.h"

#include "store/export.h"

#include <assert.h>
#include <stdlib.h>

enum {
    PIECE_BYTES = KIB(256),       /* for a descriptor */
    DOWNLOAD_PIECE_BYTES = KIB(48), /* for a client: about a fragment */
};

struct export_piece {
    struct buffer *out;
    size_t end; /* of out's length */
    uint64_t next;
};

struct export_download {
    struct silo_download base;
    struct silo *silo;
    struct evidence_covered covered;
    uint64_t next;
    bool all;           /* rest holds the end */
    struct buffer rest; /* lines that did not fit */
    size_t taken;       /* of rest */
    uint8_t note[NOTE_MAX];
};

static status put_entry(void *context, const struct store_log_entry *entry, bool *stop,
                        struct fault *fault)
{
    struct export_piece *piece = context;
    export_put_entry(piece->out, entry->salt, entry->entry);
    piece->next = entry->index + 1;
    *stop = piece->out->length >= piece->end;
    return buffer_check(piece->out, "export", fault);
}

status evidence_note(struct checkpoint *ret, struct silo *silo,
                     const uint8_t key[SIGN_PUBLIC_BYTES], struct fault *fault)
{
    struct hash_value root;
    struct span note = {silo->note, silo->note_length};
    const struct merkle_edge nothing = {0};
    struct checkpoint checkpoint;
    if (note.length == 0)
        return FAIL(UNAVAILABLE, fault, "there is no signed checkpoint yet");
    TRY(checkpoint_open(&checkpoint, note, PLATFORM_KEY_NAME, key, fault));
    if (silo->store == NULL)
        root = merkle_root(&nothing);
    else
        TRY(store_log_root_at(&root, silo->log, checkpoint.size, fault));
    if (!span_equal(SPAN_OF(root.bytes), SPAN_OF(checkpoint.root.bytes)) ||
        (silo->store == NULL && checkpoint.size != 0))
        return FAIL(CORRUPT, fault, "the checkpoint is not of this log");
    *ret = checkpoint;
    return OK;
}

status evidence_lines(struct buffer *out, uint64_t *next, bool *ret_done, struct silo *silo,
                      const struct evidence_covered *covered, size_t bytes, struct fault *fault)
{
    uint64_t size = covered->checkpoint.size;
    struct export_piece piece = {out, out->length + bytes, *next};
    if (piece.next > size)
        return FAIL(BAD_FIELD, fault, "the export begins behind the checkpoint");
    if (piece.next == 0)
        export_put_header(out, covered->checkpoint.origin, covered->key);
    if (piece.next < size)
        TRY(store_log_read(silo->log, piece.next, size, put_entry, &piece, fault));
    if (piece.next == size)
        export_put_checkpoint(out, covered->note);
    TRY(buffer_check(out, "export", fault));
    *next = piece.next;
    *ret_done = piece.next == size;
    return OK;
}

status silo_export_audit(struct buffer *out, uint64_t *from_index, bool *ret_done,
                         struct silo *silo, const uint8_t platform_key[32], struct fault *fault)
{
    struct evidence_covered covered = {.note = {silo->note, silo->note_length},
                                       .key = platform_key};
    TRY(evidence_note(&covered.checkpoint, silo, platform_key, fault));
    return evidence_lines(out, from_index, ret_done, silo, &covered, PIECE_BYTES, fault);
}

status silo_put_checkpoint(struct buffer *out, struct silo *silo, const uint8_t platform_key[32],
                           struct fault *fault)
{
    struct checkpoint checkpoint;
    TRY(evidence_note(&checkpoint, silo, platform_key, fault));
    buffer_put(out, (struct span){silo->note, silo->note_length});
    return buffer_check(out, "checkpoint", fault);
}

/* ---- for a client ---- */

static status download_read(struct buffer *out, bool *ret_end, struct silo_download *download,
                            size_t max, struct fault *fault)
{
    struct export_download *export = (struct export_download *)download;
    size_t left = max;
    while (left > 0) {
        if (export->taken == export->rest.length) {
            buffer_clear(&export->rest);
            export->taken = 0;
            if (export->all)
                break;
            TRY(evidence_lines(&export->rest, &export->next, &export->all, export->silo,
                               &export->covered, DOWNLOAD_PIECE_BYTES, fault));
        }
        size_t waits = export->rest.length - export->taken;
        size_t length = waits < left ? waits : left;
        buffer_put(out, (struct span){export->rest.data + export->taken, length});
        export->taken += length;
        left -= length;
    }
    *ret_end = export->all && export->taken == export->rest.length;
    return buffer_check(out, "export", fault);
}

static void download_close(struct silo_download *download)
{
    struct export_download *export = (struct export_download *)download;
    buffer_free(&export->rest);
    free(export);
}

static void put_header(struct silo_response *response, enum relay_header kind, struct span value)
{
    struct silo_header *header = &response->headers[response->header_count++];
    header->kind = (uint8_t)kind;
    bool fits = span_to_text(header->value, sizeof header->value, value);
    assert(fits);
}

status evidence_export(struct call *call, struct fault *fault)
{
    struct silo *silo = call->silo;
    struct checkpoint checkpoint;
    if (!silo->has_platform_key)
        return FAIL(UNAVAILABLE, fault, "there is no signed checkpoint yet");
    TRY(evidence_note(&checkpoint, silo, silo->platform_key, fault));
    put_header(call->response, RELAY_CONTENT_TYPE, SPAN("application/x-ndjson"));
    put_header(call->response, RELAY_CONTENT_DISPOSITION,
               SPAN("attachment; filename=\"audit.ndjson\""));
    call->response->http_status = 200;
    call->response->length = RELAY_LENGTH_UNKNOWN;
    call->count = (int64_t)checkpoint.size;
    if (call->request->head_only)
        return OK;
    struct export_download *export = calloc(1, sizeof *export);
    if (export == NULL)
        return FAIL(INTERNAL, fault, "out of memory for an export");
    export->base = (struct silo_download){download_read, download_close};
    export->silo = silo;
    export->rest = buffer_of(DOWNLOAD_PIECE_BYTES + 2 * EXPORT_LINE_MAX);
    for (uint32_t i = 0; i < silo->note_length; i++)
        export->note[i] = silo->note[i];
    export->covered = (struct evidence_covered){checkpoint, {export->note, silo->note_length},
                                       silo->platform_key};
    call->response->download = &export->base;
    return OK;
}
