#include "cli/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;
static volatile sig_atomic_t raw_fd = -1;

void terminal_restore(void)
{
    int fd = raw_fd;
    raw_fd = -1;
    if (fd >= 0)
        tcsetattr(fd, TCSAFLUSH, &before); /* safe in a signal handler (POSIX) */
}

static void on_fatal(int number)
{
    terminal_restore();
    raise(number); /* the default again, by SA_RESETHAND */
}

static void set_raw(int fd)
{
    struct termios raw = before;
    cfmakeraw(&raw);
    tcsetattr(fd, TCSAFLUSH, &raw);
}

bool terminal_raw(int fd)
{
    static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS};
    static bool prepared;
    const struct sigaction action = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND};
    if (!isatty(fd) || tcgetattr(fd, &before))
        return false;
    if (!prepared && atexit(terminal_restore))
        return false;
    prepared = true;
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        sigaction(fatal[i], &action, NULL);
    raw_fd = fd;
    set_raw(fd);
    return true;
}

void terminal_raw_again(void)
{
    if (raw_fd >= 0)
        set_raw(raw_fd);
}

void terminal_size(uint16_t *ret_rows, uint16_t *ret_columns)
{
    struct winsize size;
    for (int fd = 0; fd < 3; fd++) {
        if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col) {
            *ret_rows = size.ws_row;
            *ret_columns = size.ws_col;
            return;
        }
    }
    *ret_rows = 24;
    *ret_columns = 80;
}
