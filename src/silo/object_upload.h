/* object_upload.h: the uploads of objects, beside what every upload can (silo.h). */
#pragma once

#include "silo/state.h"

struct object_upload;

/* Of object.put: silo_upload_begin. */
MUST_CHECK status object_upload_open(struct silo_upload **ret, struct silo *silo,
                                     const struct silo_request *request, int64_t body_length,
                                     struct fault *fault);
/* What was written, after silo_upload_end. Holds a key: to be wiped. */
void upload_told(struct blob *ret, const struct silo_upload *upload);
/* The file stays; the upload is freed. */
void upload_give_up(struct blob_id *ret, struct silo_upload *upload);
bool uploads_have(const struct object_upload *uploads, const struct blob_id *id);
