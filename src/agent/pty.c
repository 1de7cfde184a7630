#define _GNU_SOURCE
#include "agent/pty.h"

#include "agent/agent.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

enum { TTY_GROUP = 5 };

status pty_resize(int master, uint16_t rows, uint16_t columns, struct fault *fault)
{
    const struct winsize size = {.ws_row = rows ? rows : 24, .ws_col = columns ? columns : 80};
    if (ioctl(master, TIOCSWINSZ, &size))
        return errno_status(errno, "terminal size", fault);
    return OK;
}

/* By the master where the kernel can: a path below /dev/pts is what somebody mounted there. */
static int open_slave(int master)
{
    unsigned int number;
    char path[32];
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave >= 0 || ioctl(master, TIOCGPTN, &number))
        return slave;
    snprintf(path, sizeof path, "/dev/pts/%u", number);
    return open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

status pty_open(int *ret_master, int *ret_slave, uint16_t rows, uint16_t columns, uid_t uid,
                struct fault *fault)
{
    int unlocked = 0;
    _cleanup_close_ int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked))
        return errno_status(errno, "terminal", fault);
    _cleanup_close_ int slave = open_slave(master);
    if (slave < 0)
        return errno_status(errno, "terminal", fault);
    if (uid != geteuid() && fchown(slave, uid, TTY_GROUP) && fchown(slave, uid, (gid_t)-1))
        return errno_status(errno, "terminal", fault);
    TRY(pty_resize(master, rows, columns, fault));
    *ret_master = take_fd(&master);
    *ret_slave = take_fd(&slave);
    return OK;
}

size_t pty_end_of_input(int master, uint8_t text[2])
{
    struct termios settings;
    if (tcgetattr(master, &settings) || !(settings.c_lflag & ICANON))
        return 0;
    text[0] = text[1] = settings.c_cc[VEOF]; /* the first may only end a line that was begun */
    return 2;
}
