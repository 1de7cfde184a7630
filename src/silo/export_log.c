/* export_log.c: the audit log as it was when the export began. An archive says first how long a
 * file is: so the lines are made twice, counted and then written. */
#include "silo/export_state.h"

#include "store/export.h"

enum { STEP_BYTES = KIB(64) };

status export_log_begin(struct export_log *log, struct silo *silo,
                        const uint8_t platform_key[SIGN_PUBLIC_BYTES], struct fault *fault)
{
    status covers = evidence_note(&log->covered.checkpoint, silo, platform_key, fault);
    log->damaged = covers == CORRUPT;
    if (!log->damaged)
        TRY(covers);
    for (uint32_t i = 0; i < silo->note_length; i++)
        log->note[i] = silo->note[i];
    log->covered.note = (struct span){log->note, silo->note_length};
    log->covered.key = platform_key;
    return OK;
}

static status count_some(struct silo_export *export, struct fault *fault)
{
    bool done = false;
    struct export_log *log = &export->log;
    _cleanup_buffer_ struct buffer lines = buffer_of(STEP_BYTES + 2 * EXPORT_LINE_MAX);
    TRY(evidence_lines(&lines, &log->next, &done, export->silo, &log->covered, STEP_BYTES,
                       fault));
    log->bytes += lines.length;
    if (!done)
        return OK;
    log->measured = true;
    log->next = 0;
    tar_put_header(&export->out, SPAN("audit.ndjson"), log->bytes, export->began_us);
    return OK;
}

static status write_some(struct silo_export *export, struct fault *fault)
{
    bool done = false;
    struct export_log *log = &export->log;
    size_t before = export->out.length;
    TRY(evidence_lines(&export->out, &log->next, &done, export->silo, &log->covered, STEP_BYTES,
                       fault));
    log->written += export->out.length - before;
    if (log->written > log->bytes || (done && log->written != log->bytes))
        return FAIL(CORRUPT, fault, "the audit log is not what it was a moment ago");
    if (!done)
        return OK;
    tar_put_padding(&export->out, log->bytes);
    export_next_phase(export);
    return OK;
}

status export_entries(struct silo_export *export, struct fault *fault)
{
    struct export_log *log = &export->log;
    if (log->measured)
        return write_some(export, fault);
    status counted = log->damaged ? CORRUPT : count_some(export, fault);
    if (counted != CORRUPT)
        return counted;
    export_damage(export, "audit", (struct span){0}, -1);
    export_next_phase(export);
    return OK;
}
