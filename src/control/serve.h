/* serve.h: control's whole life behind one call; for its main, and unjailed for tests. */
#pragma once

#include "base/status.h"

#include <stdbool.h>

/* OK after an orderly STOP. */
MUST_CHECK status control_serve(int supervisor, bool jailed, struct fault *fault);
