/* evidence.c: exports, and their verification offline: by the file alone, no node needed. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "cli/evidence.h"
#include "store/export.h"
#include "wire/base64.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PIECE_BYTES = 256 * 1024, TAIL_LINES = 20, RECEIPT_FILE_MAX = 64 * 1024 };

status evidence_key(uint8_t ret[SIGN_PUBLIC_BYTES], const char *text, struct fault *fault)
{
    char line[128] = "";
    uint8_t storage[SIGN_PUBLIC_BYTES];
    struct buffer key = buffer_over(storage, sizeof storage);
    _cleanup_close_ int fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t count = read(fd, line, sizeof line - 1);
        line[count > 0 ? count : 0] = '\0';
        line[strcspn(line, "\r\n ")] = '\0';
        text = line;
    }
    if (base64_decode(&key, span_of_text(text), "--key", fault) != OK || key.failed
        || key.length != SIGN_PUBLIC_BYTES)
        return FAIL(BAD_FIELD, fault, "--key: must be 32 bytes in base64, as `bulkhead "
                    "platform-key` prints, or a file that holds them");
    memcpy(ret, storage, SIGN_PUBLIC_BYTES);
    return OK;
}

status evidence_file(struct buffer *out, const char *path, struct fault *fault)
{
    _cleanup_close_ int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO)
                                                     : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL(NOT_FOUND, fault, "%.150s: %s", path, strerror(errno));
    return file_read(out, fd, path, fault);
}

static status feed_file(struct export_verifier *verifier, const char *path, struct fault *fault)
{
    _cleanup_free_ uint8_t *piece = malloc(PIECE_BYTES);
    _cleanup_close_ int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO)
                                                     : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || !piece)
        return FAIL(NOT_FOUND, fault, "%.150s: %s", path, strerror(errno));
    ssize_t count;
    while ((count = read(fd, piece, PIECE_BYTES)) > 0)
        TRY(export_verifier_feed(verifier, (struct span){piece, (size_t)count}, fault));
    return count == 0 ? OK : FAIL(INTERNAL, fault, "%.150s: %s", path, strerror(errno));
}

/* The origin is whatever the file's signer wrote: it may hold quotes. */
static void print_summary_json(const struct export_summary *summary, const char *root,
                               const char *fingerprint)
{
    _cleanup_buffer_ struct buffer text = buffer_of(4096);
    struct json_writer writer = json_writer_on(&text);
    json_open_object(&writer, NULL);
    json_put_bool(&writer, "valid", true);
    json_put_text(&writer, "origin", summary->checkpoint.origin);
    json_put_integer(&writer, "entries", (int64_t)summary->checkpoint.size);
    json_put_text(&writer, "root", root);
    json_put_text(&writer, "key_fingerprint", fingerprint);
    json_put_integer(&writer, "witnessed", summary->witnessed);
    json_close_object(&writer);
    printf("%.*s\n", SPAN_ARG(buffer_span(&text)));
}

static void print_summary(const struct cli *cli, const struct export_summary *summary)
{
    char fingerprint[2 * HASH_BYTES + 1], root[2 * HASH_BYTES + 1];
    key_fingerprint(fingerprint, summary->key);
    hex_encode(root, SPAN_OF(summary->checkpoint.root.bytes));
    if (cli->json) {
        print_summary_json(summary, root, fingerprint);
        return;
    }
    printf("valid: %llu entries of ", (unsigned long long)summary->checkpoint.size);
    cli_put_text(span_of_text(summary->checkpoint.origin));
    putchar('\n');
    printf("  root            %s\n  signed by       %s\n", root, fingerprint);
    if (summary->has_earlier)
        printf("  continues the checkpoint over %llu entries\n",
               (unsigned long long)summary->earlier_size);
    if (summary->witnessed)
        printf("  continues the %u checkpoints of the witness file\n", summary->witnessed);
}

struct kept_elsewhere {
    const char *key, *checkpoint, *witness; /* of the line; NULL: not given */
};

static status open_kept_witness(struct witness **ret, const char *path, struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(WITNESS_FILE_MAX);
    struct fault inner;
    TRY(evidence_file(&text, path, fault));
    status read = witness_read(ret, buffer_span(&text), &inner);
    return read == OK ? OK : FAIL(read, fault, "%.60s: %.130s", path, inner.detail);
}

static status verify(struct export_summary *ret, const char *path,
                     const struct kept_elsewhere *kept, struct fault *fault)
{
    uint8_t key[SIGN_PUBLIC_BYTES];
    _cleanup_buffer_ struct buffer note = buffer_of(NOTE_SIGNED_MAX + 4096);
    struct export_demands demands = {0};
    struct export_verifier *verifier;
    struct witness *witness = NULL;
    if (kept->key) {
        TRY(evidence_key(key, kept->key, fault));
        demands.key = key;
    }
    if (kept->checkpoint) {
        TRY(evidence_file(&note, kept->checkpoint, fault));
        demands.checkpoint = buffer_span(&note);
    }
    if (kept->witness)
        TRY(open_kept_witness(&witness, kept->witness, fault));
    demands.witness = witness;
    status result = export_verifier_create(&verifier, &demands, fault);
    if (result == OK) {
        result = feed_file(verifier, path, fault);
        if (result == OK)
            result = export_verifier_end(ret, verifier, fault);
        export_verifier_free(verifier);
    }
    witness_free(witness);
    return result;
}

static int command_verify(struct cli *cli)
{
    struct export_summary summary;
    struct fault fault;
    const struct kept_elsewhere kept = {cli_option(cli, "--key"), cli_option(cli, "--checkpoint"),
                                        cli_option(cli, "--witness")};
    const char *path = cli_word(cli);
    if (!path)
        return cli_usage("verify: a file is needed");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    if (verify(&summary, path, &kept, &fault) != OK)
        return cli_refused(fault.detail);
    print_summary(cli, &summary);
    return EXIT_DONE;
}

/* What is exported is verified on its way: a writer that stopped half way is not taken for an
 * end. */
static status copy_export(int from, int to, struct fault *fault)
{
    static uint8_t piece[PIECE_BYTES];
    const struct export_demands demands = {0};
    struct export_verifier *verifier;
    struct export_summary summary;
    ssize_t count = 0;
    TRY(export_verifier_create(&verifier, &demands, fault));
    status result = OK;
    while (result == OK && (count = read(from, piece, sizeof piece)) > 0) {
        struct span bytes = {piece, (size_t)count};
        result = file_write(to, bytes, "the export", fault);
        if (result == OK)
            result = export_verifier_feed(verifier, bytes, fault);
    }
    if (result == OK && count < 0)
        result = FAIL(INTERNAL, fault, "the export cannot be read: %s", strerror(errno));
    if (result == OK)
        result = export_verifier_end(&summary, verifier, fault);
    export_verifier_free(verifier);
    return result;
}

static int open_output(const char *path)
{
    return path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : dup(STDOUT_FILENO);
}

/* The writer gets the one end of a pipe; we read until it closes it. */
static status export_audit(struct cli *cli, struct span arguments, int output,
                           struct fault *fault)
{
    int ends[2];
    struct buffer answer;
    if (pipe2(ends, O_CLOEXEC))
        return FAIL(INTERNAL, fault, "pipe: %s", strerror(errno));
    status asked = client_call(&answer, cli, "audit.export", arguments, ends[1], fault);
    buffer_free(&answer);
    close(ends[1]);
    if (asked == OK)
        asked = copy_export(ends[0], output, fault);
    close(ends[0]);
    return asked;
}

static status put_name(struct buffer *arguments, const char *name, struct fault *fault)
{
    struct json_writer writer = json_writer_on(arguments);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", name);
    json_close_object(&writer);
    return buffer_check(arguments, "name", fault);
}

static int audit_export(struct cli *cli)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct fault fault;
    const char *path = cli_option(cli, "-o"), *name = cli_word(cli);
    if (!name)
        return cli_usage("audit export: a name is needed");
    if (cli_end(cli) != EXIT_DONE || put_name(&arguments, name, &fault) != OK)
        return EXIT_USAGE;
    _cleanup_close_ int output = open_output(path);
    if (output < 0)
        return cli_refused(strerror(errno));
    status result = export_audit(cli, buffer_span(&arguments), output, &fault);
    return result == OK ? EXIT_DONE : cli_refused(fault.detail);
}

static void print_line(const char *line)
{
    cli_put_text(span_of_text(line));
    putchar('\n');
}

/* The last entries of a file, without the header and the checkpoint. */
static void print_tail(int fd)
{
    int copy = lseek(fd, 0, SEEK_SET) == 0 ? dup(fd) : -1;
    FILE *file = copy >= 0 ? fdopen(copy, "r") : NULL;
    char *lines[TAIL_LINES + 1] = {NULL}, *line = NULL;
    size_t capacity = 0, count = 0;
    if (!file)
        return;
    for (ssize_t length; (length = getline(&line, &capacity, file)) > 0;) {
        line[length - 1] = '\0'; /* an export ends each line */
        size_t at = count++ % (TAIL_LINES + 1);
        free(lines[at]);
        lines[at] = line;
        line = NULL;
        capacity = 0;
    }
    size_t first = count > TAIL_LINES ? count - TAIL_LINES - 1 : 0;
    for (size_t i = first < 1 ? 1 : first; i + 1 < count; i++)
        print_line(lines[i % (TAIL_LINES + 1)]);
    for (size_t i = 0; i <= TAIL_LINES; i++)
        free(lines[i]);
    free(line);
    fclose(file);
}

static int audit_tail(struct cli *cli)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct fault fault;
    const char *name = cli_word(cli);
    if (!name)
        return cli_usage("audit tail: a name is needed");
    if (cli_end(cli) != EXIT_DONE || put_name(&arguments, name, &fault) != OK)
        return EXIT_USAGE;
    _cleanup_close_ int file = memfd_create("tail", MFD_CLOEXEC);
    if (file < 0)
        return cli_refused(strerror(errno));
    if (export_audit(cli, buffer_span(&arguments), file, &fault) != OK)
        return cli_refused(fault.detail);
    print_tail(file);
    return EXIT_DONE;
}

int command_audit(struct cli *cli)
{
    const char *word = cli_word(cli);
    if (word && strcmp(word, "export") == 0)
        return audit_export(cli);
    if (word && strcmp(word, "verify") == 0)
        return command_verify(cli);
    if (word && strcmp(word, "tail") == 0)
        return audit_tail(cli);
    if (word && strcmp(word, "witness") == 0)
        return audit_witness(cli);
    return cli_usage("audit: export, verify, witness or tail");
}

static int ledger_export(struct cli *cli)
{
    struct buffer answer;
    struct fault fault;
    const char *path = cli_option(cli, "-o");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    _cleanup_close_ int file = memfd_create("ledger", MFD_CLOEXEC);
    _cleanup_close_ int output = open_output(path);
    if (file < 0 || output < 0)
        return cli_refused(strerror(errno));
    status result = client_call(&answer, cli, "ledger.export", SPAN("{}"), file, &fault);
    buffer_free(&answer);
    if (result == OK && lseek(file, 0, SEEK_SET) == 0)
        result = copy_export(file, output, &fault);
    return result == OK ? EXIT_DONE : cli_refused(fault.detail);
}

int command_ledger(struct cli *cli)
{
    const char *word = cli_word(cli);
    if (word && strcmp(word, "export") == 0)
        return ledger_export(cli);
    if (word && strcmp(word, "verify") == 0)
        return command_verify(cli);
    return cli_usage("ledger: export or verify");
}

/* {"receipt":{...},"signature":"...","public_key":"..."}: the signature covers the receipt's very
 * bytes. */
static status verify_receipt(uint8_t ret_key[SIGN_PUBLIC_BYTES], struct json *ret_document,
                             struct arena *arena, struct span text, const char *key_text,
                             struct fault *fault)
{
    static const char *const known[] = {"receipt", "signature", "public_key", NULL};
    static const char prefix[] = "bulkhead receipt v1\n";
    uint8_t key_bytes[SIGN_PUBLIC_BYTES], signature_bytes[SIGNATURE_BYTES];
    struct buffer key = buffer_over(key_bytes, sizeof key_bytes);
    struct buffer signature = buffer_over(signature_bytes, sizeof signature_bytes);
    struct span key_span, signature_span;
    while (text.length && text.data[text.length - 1] == '\n')
        text.length--;
    TRY(json_parse(ret_document, arena, text, fault));
    TRY(json_need_object(ret_document, "receipt file", fault));
    TRY(json_only(ret_document, known, fault));
    TRY(json_text(&key_span, ret_document, "public_key", 1, 64, fault));
    TRY(json_text(&signature_span, ret_document, "signature", 1, 128, fault));
    TRY(base64_decode(&key, key_span, "public_key", fault));
    TRY(base64_decode(&signature, signature_span, "signature", fault));
    const struct json *receipt = json_member(ret_document, "receipt");
    if (!receipt || receipt->kind != JSON_OBJECT || key.length != sizeof key_bytes
        || signature.length != sizeof signature_bytes)
        return FAIL(CORRUPT, fault, "this is no receipt of bulkhead's");
    if (key_text) {
        uint8_t wanted[SIGN_PUBLIC_BYTES];
        TRY(evidence_key(wanted, key_text, fault));
        if (!span_equal(SPAN_OF(wanted), SPAN_OF(key_bytes)))
            return FAIL(CORRUPT, fault, "the receipt is signed by another key than --key");
    }
    _cleanup_buffer_ struct buffer message = buffer_of(RECEIPT_FILE_MAX + sizeof prefix);
    buffer_put_text(&message, prefix);
    buffer_put(&message, receipt->source);
    struct verifier *verifier;
    TRY(verifier_create(&verifier, key_bytes, fault));
    status held = verifier_check(verifier, buffer_span(&message), signature_bytes, fault);
    verifier_free(verifier);
    if (held != OK)
        return FAIL(CORRUPT, fault, "the signature does not hold: the receipt was altered");
    memcpy(ret_key, key_bytes, sizeof key_bytes);
    return OK;
}

int command_receipt(struct cli *cli)
{
    uint8_t key[SIGN_PUBLIC_BYTES];
    char fingerprint[2 * HASH_BYTES + 1];
    struct fault fault;
    struct json document;
    const char *key_text = cli_option(cli, "--key"), *word = cli_word(cli), *path = cli_word(cli);
    if (!word || strcmp(word, "verify") != 0 || !path)
        return cli_usage("receipt: verify FILE");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    _cleanup_buffer_ struct buffer text = buffer_of(RECEIPT_FILE_MAX);
    struct arena arena = arena_of(1024 * 1024);
    status result = evidence_file(&text, path, &fault);
    if (result == OK)
        result = verify_receipt(key, &document, &arena, buffer_span(&text), key_text, &fault);
    if (result == OK) {
        key_fingerprint(fingerprint, key);
        struct span receipt = json_member(&document, "receipt")->source;
        printf(cli->json ? "{\"valid\":true,\"key_fingerprint\":\"%s\",\"receipt\":"
                         : "valid: signed by %s\n", fingerprint);
        if (cli->json)
            printf("%.*s", SPAN_ARG(receipt));
        else
            cli_put_text(receipt);
        puts(cli->json ? "}" : "");
    }
    arena_free(&arena);
    return result == OK ? EXIT_DONE : cli_refused(fault.detail);
}

status evidence_platform_key(uint8_t ret[SIGN_PUBLIC_BYTES], const struct cli *cli,
                             struct fault *fault)
{
    struct buffer answer;
    struct span text;
    struct json document;
    char line[128];
    struct arena arena = arena_of(KIB(16));
    status asked = client_call(&answer, cli, "platform.key", SPAN("{}"), -1, fault);
    if (asked == OK)
        asked = json_parse(&document, &arena, buffer_span(&answer), fault);
    if (asked == OK)
        asked = json_text(&text, &document, "public_key", 1, sizeof line - 1, fault);
    if (asked == OK && span_to_text(line, sizeof line, text))
        asked = evidence_key(ret, line, fault);
    buffer_free(&answer);
    arena_free(&arena);
    return asked;
}

static void print_key(const struct json *document)
{
    struct span key;
    struct fault fault;
    if (json_text(&key, document, "public_key", 1, 64, &fault) == OK)
        printf("%.*s\n", SPAN_ARG(key));
}

int command_platform_key(struct cli *cli)
{
    struct buffer answer;
    struct fault fault;
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    status result = client_call(&answer, cli, "platform.key", SPAN("{}"), -1, &fault);
    int code = result == OK ? cli_show(cli, buffer_span(&answer), print_key)
                            : cli_refused(fault.detail);
    buffer_free(&answer);
    return code;
}
