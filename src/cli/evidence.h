/* evidence.h: what the commands on evidence share. */
#pragma once

#include "cli/cli.h"
#include "crypt/note.h"

/* A public key as platform-key prints it (base64), or a file that holds it so. */
MUST_CHECK status evidence_key(uint8_t ret[SIGN_PUBLIC_BYTES], const char *text,
                               struct fault *fault);
/* "-": standard input. */
MUST_CHECK status evidence_file(struct buffer *out, const char *path, struct fault *fault);
/* The platform's key, from the node. */
MUST_CHECK status evidence_platform_key(uint8_t ret[SIGN_PUBLIC_BYTES], const struct cli *cli,
                                        struct fault *fault);

int audit_witness(struct cli *cli); /* witness.c */
