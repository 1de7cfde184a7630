/* A configuration that is accepted holds its bounds; one that is refused changes nothing. */
#include "fuzz.h"
#include "supervisor/options.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct options before, after;
    struct fault fault;
    memset(&before, 0, sizeof before);
    after = before;
    if (options_from_json(&after, (struct span){data, size}, &fault) != OK) {
        CHECK(memcmp(&before, &after, sizeof before) == 0);
        return 0;
    }
    CHECK(after.gateways <= GATEWAYS_MAX);
    CHECK(after.uid_base == 0 || after.uid_base >= 1000);
    CHECK(memchr(after.data, 0, sizeof after.data) && memchr(after.keys, 0, sizeof after.keys));
    return 0;
}
