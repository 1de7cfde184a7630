#include "silo/object.h"

#include "base/secret.h"
#include "wire/http_date.h"

#include <stdlib.h>

/* Takes its bytes from an open file with a key of its own: what is deleted meanwhile stays for
 * whoever reads it already. */
struct object_download {
    struct silo_download download;
    struct blob_reader *reader;
    uint64_t at, end; /* in the object */
};

static status read_on(struct buffer *out, bool *ret_end, struct silo_download *download,
                      size_t max, struct fault *fault)
{
    struct object_download *object = (struct object_download *)download;
    uint64_t left = object->end - object->at, count = left < max ? left : max;
    TRY(blob_read(out, object->reader, object->at, count, fault));
    object->at += count;
    *ret_end = object->at == object->end;
    return OK;
}

static void close_reader(struct silo_download *download)
{
    struct object_download *object = (struct object_download *)download;
    blob_close(object->reader);
    free(object);
}

static status open_download(struct call *call, const struct object_row *row,
                            const struct object_part *part, struct fault *fault)
{
    struct blobs *blobs;
    struct blob blob;
    TRY(objects_blobs(&blobs, call->silo, fault));
    struct object_download *object = calloc(1, sizeof *object);
    if (object == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a download");
    object->download = (struct silo_download){read_on, close_reader};
    object->at = part->from;
    object->end = part->from + part->length;
    status opened = object_blob(&blob, call->silo, row, fault);
    if (opened == OK)
        opened = blob_open(&object->reader, blobs, &blob, fault);
    secret_wipe(&blob, sizeof blob);
    if (opened != OK) {
        free(object);
        return opened;
    }
    call->response->download = &object->download;
    return OK;
}

static void put_validators(struct call *call, const struct object_row *row)
{
    char etag[OBJECT_ETAG_TEXT], date[HTTP_DATE_TEXT];
    object_etag(etag, &row->blob);
    http_date_text(date, row->updated_us / 1000000);
    call_header(call, RELAY_ETAG, span_of_text(etag));
    call_header(call, RELAY_LAST_MODIFIED, span_of_text(date));
}

static void put_content_range(struct call *call, const struct object_row *row,
                              const struct object_part *part)
{
    uint8_t storage[96];
    struct buffer text = buffer_over(storage, sizeof storage);
    if (part != NULL)
        buffer_printf(&text, "bytes %llu-%llu/%llu", (unsigned long long)part->from,
                      (unsigned long long)(part->from + part->length - 1),
                      (unsigned long long)row->bytes);
    else
        buffer_printf(&text, "bytes */%llu", (unsigned long long)row->bytes);
    call_header(call, RELAY_CONTENT_RANGE, buffer_span(&text));
}

/* A file of a tenant's is never a page of the platform's: a browser that gets it saves it. */
static void put_headers(struct call *call, const struct object_row *row,
                        const struct object_part *part)
{
    call_header(call, RELAY_CONTENT_TYPE, row->content_type);
    put_validators(call, row);
    if (part->partial)
        put_content_range(call, row, part);
    call_header(call, RELAY_ACCEPT_RANGES, SPAN("bytes"));
    call_header(call, RELAY_CONTENT_DISPOSITION, SPAN("attachment"));
}

static status give(struct call *call, const struct object_row *row, struct fault *fault)
{
    struct object_part part;
    bool unchanged;
    TRY(object_conditions(&unchanged, call, row, fault));
    if (unchanged) {
        call->response->http_status = 304;
        put_validators(call, row);
        return OK;
    }
    status found = object_part(&part, call, row, fault);
    if (found == RANGE_NOT_SATISFIABLE)
        put_content_range(call, row, NULL);
    TRY(found);
    if (!call->request->head_only)
        TRY(open_download(call, row, &part, fault));
    put_headers(call, row, &part);
    call->response->http_status = part.partial ? 206 : 200;
    call->response->length = part.length;
    return OK;
}

status object_get(struct call *call, struct fault *fault)
{
    struct object_row row;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(object_visible(&row, &rows, call, fault));
    return give(call, &row, fault);
}
