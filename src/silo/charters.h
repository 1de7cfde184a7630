/* charters.h: the silo's own copies of the charters in force: what a cell can wake under when
 * control withholds the newest, or hands in an older one. They are as authentic as all that is in
 * the silo; whether one is still in force only the kms says. */
#pragma once

#include "silo/state.h"

/* Inside the open transaction: the copies that wait. They still wait until charters_written. */
MUST_CHECK status charters_write(struct silo *silo, struct fault *fault);
void charters_written(struct silo *silo);

extern const struct store_schema charters_schema;
