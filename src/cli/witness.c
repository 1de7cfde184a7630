/* witness.c: keeps checkpoints of a log in a file of the auditor's own: once a day from cron, or
 * whenever one was fetched. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/evidence.h"
#include "store/witness.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

struct wish {
    const char *path, *tenant, *note, *key; /* of the line; NULL: not given */
};

struct kept {
    int fd; /* locked */
    struct witness *witness; /* NULL: the file is new */
};

static status open_file(struct kept *kept, const char *path, struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(WITNESS_FILE_MAX);
    struct fault inner;
    kept->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (kept->fd < 0 || flock(kept->fd, LOCK_EX))
        return FAIL(INTERNAL, fault, "%.150s: %s", path, strerror(errno));
    TRY(file_read(&text, kept->fd, path, fault));
    if (text.length == 0)
        return OK;
    status read = witness_read(&kept->witness, buffer_span(&text), &inner);
    return read == OK ? OK : FAIL(read, fault, "%.60s: %.130s", path, inner.detail);
}

/* The node writes the newest checkpoint, which covers all that was answered before. */
static status fetch_note(struct buffer *out, const struct cli *cli, const char *tenant,
                         struct fault *fault)
{
    int ends[2];
    struct buffer answer;
    if (pipe2(ends, O_CLOEXEC))
        return FAIL(INTERNAL, fault, "pipe: %s", strerror(errno));
    status asked = client_call_named(&answer, cli, "audit.checkpoint", tenant, ends[1], fault);
    buffer_free(&answer);
    close(ends[1]);
    if (asked == OK)
        asked = file_read(out, ends[0], "the checkpoint", fault);
    close(ends[0]);
    if (asked == OK && out->length == 0)
        return FAIL(UNAVAILABLE, fault, "the node gave no checkpoint");
    return asked;
}

/* The key that must have signed: the one demanded, else that of the file, else the node's. */
static status choose_key(uint8_t ret[SIGN_PUBLIC_BYTES], const struct cli *cli,
                         const struct wish *wish, const struct witness *witness,
                         struct fault *fault)
{
    uint8_t demanded[SIGN_PUBLIC_BYTES];
    if (wish->key)
        TRY(evidence_key(demanded, wish->key, fault));
    if (wish->key && witness && !span_equal(SPAN_OF(demanded), SPAN_OF(witness->key)))
        return FAIL(CORRUPT, fault, "%.100s is of another key than --key", wish->path);
    if (!wish->key && !witness && !wish->tenant)
        return FAIL(BAD_FIELD, fault, "--key: is needed for the first checkpoint of a file");
    if (!wish->key && !witness)
        return evidence_platform_key(ret, cli, fault);
    memcpy(ret, wish->key ? demanded : witness->key, SIGN_PUBLIC_BYTES);
    return OK;
}

/* One write, so that a crash leaves a line that is whole or is seen to be cut. */
static status append(const struct kept *kept, struct span note, const uint8_t *key,
                     const struct checkpoint *checkpoint, struct fault *fault)
{
    _cleanup_buffer_ struct buffer lines = buffer_of(KIB(64));
    if (!kept->witness)
        witness_put_header(&lines, checkpoint->origin, key);
    witness_put_checkpoint(&lines, clock_wall_us(), note);
    TRY(buffer_check(&lines, "witness file", fault));
    TRY(file_write(kept->fd, buffer_span(&lines), "the witness file", fault));
    if (fsync(kept->fd))
        return FAIL(INTERNAL, fault, "the witness file: %s", strerror(errno));
    return OK;
}

static status keep(bool *ret_new, struct checkpoint *ret, struct kept *kept,
                   const struct cli *cli, const struct wish *wish, struct fault *fault)
{
    uint8_t key[SIGN_PUBLIC_BYTES];
    _cleanup_buffer_ struct buffer note = buffer_of(NOTE_SIGNED_MAX + 1);
    bool new = true;
    TRY(open_file(kept, wish->path, fault));
    TRY(choose_key(key, cli, wish, kept->witness, fault));
    if (wish->tenant)
        TRY(fetch_note(&note, cli, wish->tenant, fault));
    else
        TRY(evidence_file(&note, wish->note, fault));
    TRY(checkpoint_open(ret, buffer_span(&note), PLATFORM_KEY_NAME, key, fault));
    if (kept->witness)
        TRY(witness_check(&new, kept->witness, buffer_span(&note), fault));
    if (new && kept->witness && kept->witness->count == WITNESS_CHECKPOINTS_MAX)
        return FAIL(TOO_LARGE, fault, "the file is full: begin another one");
    *ret_new = new;
    return new ? append(kept, buffer_span(&note), key, ret, fault) : OK;
}

static void print_kept(const struct cli *cli, bool new, const struct checkpoint *checkpoint)
{
    _cleanup_buffer_ struct buffer text = buffer_of(KIB(4));
    struct json_writer writer = json_writer_on(&text);
    if (!cli->json) {
        printf("%s: %llu entries of ", new ? "kept" : "already kept",
               (unsigned long long)checkpoint->size);
        cli_put_text(span_of_text(checkpoint->origin));
        putchar('\n');
        return;
    }
    json_open_object(&writer, NULL);
    json_put_bool(&writer, "kept", new);
    json_put_text(&writer, "origin", checkpoint->origin);
    json_put_integer(&writer, "entries", (int64_t)checkpoint->size);
    json_close_object(&writer);
    printf("%.*s\n", SPAN_ARG(buffer_span(&text)));
}

int audit_witness(struct cli *cli)
{
    struct fault fault;
    struct checkpoint checkpoint;
    struct kept kept = {.fd = -1};
    bool new = false;
    const struct wish wish = {.tenant = cli_option(cli, "--tenant"),
                              .note = cli_option(cli, "--note"), .key = cli_option(cli, "--key"),
                              .path = cli_word(cli)};
    if (!wish.path || !wish.tenant == !wish.note)
        return cli_usage("audit witness: FILE and one of --tenant NAME, --note FILE");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    status done = keep(&new, &checkpoint, &kept, cli, &wish, &fault);
    witness_free(kept.witness);
    if (kept.fd >= 0)
        close(kept.fd);
    if (done != OK)
        return cli_refused(fault.detail);
    print_kept(cli, new, &checkpoint);
    return EXIT_DONE;
}
