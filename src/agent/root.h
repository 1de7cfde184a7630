/* root.h: the guest's root file system: the image below, what is written above it. */
#pragma once

#include "base/status.h"

/* erofs of /dev/vda below; above it ext4 of /dev/vdb, grown to the whole of its device, or memory
 * where there is none. Without /dev/vda the initramfs is the root. Then proc, sys and the rest. */
MUST_CHECK status root_enter(struct fault *fault);
