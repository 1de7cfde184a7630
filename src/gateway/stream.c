/* stream.c: which requests a cell has in flight.
 *
 * A cancelled stream is kept: its answer may have left the cell before the cell read the
 * cancellation. It is over when the cell answers a stream that was opened later, for it reads in
 * order: until then its frames are checked like any other's and dropped. Beyond a number of them
 * the oldest are forgotten: until then what may be theirs is dropped, whatever it says. */
#include "gateway/state.h"

#include <assert.h>
#include <stdlib.h>

enum { CANCELLED_MAX = RELAY_STREAMS_MAX };

static struct stream **bucket_of(struct relay *relay, uint32_t id)
{
    return &relay->buckets[id % STREAM_BUCKETS];
}

struct stream *stream_find(struct relay *relay, uint32_t id)
{
    struct stream *stream = *bucket_of(relay, id);
    while (stream && stream->id != id)
        stream = stream->next_bucket;
    return stream;
}

struct stream *stream_open(struct relay *relay, struct exchange *exchange)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    do
        relay->next_id++;
    while (relay->next_id == 0 || stream_find(relay, relay->next_id)); /* after a wrap */
    struct stream **bucket = bucket_of(relay, relay->next_id);
    *stream = (struct stream){.next_bucket = *bucket, .relay = relay, .id = relay->next_id,
                              .exchange = exchange};
    *bucket = stream;
    relay->live++;
    relay->gateway->with_cells++;
    return stream;
}

static void left_cell(struct relay *relay)
{
    relay->live--;
    relay->gateway->with_cells--;
}

void stream_hush(struct stream *stream)
{
    stream->relay->talking -= stream->talking;
    stream->talking = false;
}

static void remove_cancelled(struct relay *relay, struct stream *stream)
{
    struct stream **at = &relay->first_cancelled, *previous = NULL;
    while (*at != stream) {
        previous = *at;
        at = &(*at)->next_cancelled;
    }
    *at = stream->next_cancelled;
    if (relay->last_cancelled == stream)
        relay->last_cancelled = previous;
    relay->cancelled--;
}

void stream_close(struct stream *stream)
{
    struct relay *relay = stream->relay;
    struct stream **at = bucket_of(relay, stream->id);
    assert(!stream->exchange);
    stream_hush(stream);
    while (*at != stream)
        at = &(*at)->next_bucket;
    *at = stream->next_bucket;
    if (stream->cancelled)
        remove_cancelled(relay, stream);
    else
        left_cell(relay);
    free(stream);
}

static void forget(struct relay *relay, struct stream *stream)
{
    if (!relay->forgotten || (int32_t)(stream->id - relay->forgotten_id) > 0)
        relay->forgotten_id = stream->id;
    relay->forgotten = true;
    relay->forgotten_mark = stream->mark;
    stream_close(stream);
}

void stream_cancel(struct stream *stream)
{
    struct relay *relay = stream->relay;
    stream->exchange = NULL;
    stream_hush(stream);
    stream->uploading = false;
    stream->cancelled = true;
    stream->mark = relay->next_id + 1;
    *(relay->last_cancelled ? &relay->last_cancelled->next_cancelled
                            : &relay->first_cancelled) = stream;
    relay->last_cancelled = stream;
    left_cell(relay);
    if (++relay->cancelled > CANCELLED_MAX)
        forget(relay, relay->first_cancelled);
}

bool stream_forgotten(const struct relay *relay, uint32_t id)
{
    return relay->forgotten && (int32_t)(relay->forgotten_id - id) >= 0; /* ids wrap */
}

void stream_orphan(struct stream *stream)
{
    stream_hush(stream);
    stream->exchange = NULL;
}

void streams_settle(struct relay *relay, uint32_t answered)
{
    while (relay->first_cancelled
           && (int32_t)(answered - relay->first_cancelled->mark) >= 0) /* ids wrap */
        stream_close(relay->first_cancelled);
    if (relay->forgotten && (int32_t)(answered - relay->forgotten_mark) >= 0)
        relay->forgotten = false;
}
