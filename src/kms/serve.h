/* serve.h: the kms towards its peers: channels, what each may ask, and the turn that answers.
 *
 * Four kinds of channel, each with its permit table (handlers.c): the supervisor's, control's
 * standing one, one per admin connection, one per awake cell. A message outside its channel's
 * table, malformed or out of turn ends that channel and is logged. Work is bounded: a few messages
 * a channel and turn, answers of one turn in one secret area, a bounded queue to a slow peer. No
 * answer leaves before the anchors that its turn moved are durable, and no cell hears before then
 * of a charter that its turn signed; who signed it is answered when all cells were told. */
#pragma once

#include "base/loop.h"
#include "kms/keystore.h"

struct kms;

/* Serves on the loop until kms_free; sends READY to the supervisor. Takes the turn-end hook of the
 * loop. supervisor_fd becomes the room's own, also on failure; loop and store are borrowed. The
 * loop is stopped when the supervisor says so or is gone. */
MUST_CHECK status kms_serve(struct kms **ret, struct loop *loop, struct keystore *store,
                            int supervisor_fd, struct fault *fault);
struct kms *kms_free(struct kms *kms); /* closes every channel, wipes; NULL; takes NULL */

/* OK when the supervisor said STOP; else why the loop was stopped. */
MUST_CHECK status kms_outcome(const struct kms *kms, struct fault *fault);
