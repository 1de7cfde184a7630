#include "base/log.h"
#include "control/serve.h"
#include "crypt/crypt.h"
#include "jail/jail.h"
#include "store/store.h"

int main(void)
{
    struct fault fault;
    log_open("control", LOG_INFO);
    status result = jail_blank(JAIL_CONTROL, &fault);
    if (result == OK)
        result = crypt_start(&fault);
    if (result == OK)
        result = store_start(&fault);
    if (result == OK)
        result = control_serve(JAIL_FD_SUPERVISOR, true, &fault);
    if (result != OK)
        log_event(LOG_ERROR, "control.failed", "%s", fault.detail);
    return result == OK ? 0 : 1;
}
