#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

int64_t clock_monotonic_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

void clock_text(char text[CLOCK_TEXT_SIZE], int64_t wall_us)
{
    const int64_t year_1 = -62135596800, year_9999_end = 253402300799;
    int64_t seconds = wall_us / 1000000, micros = wall_us % 1000000;
    if (micros < 0) {
        micros += 1000000;
        seconds -= 1;
    }
    time_t clamped = (time_t)(seconds < year_1 ? year_1
                              : seconds > year_9999_end ? year_9999_end : seconds);
    struct tm parts;
    gmtime_r(&clamped, &parts);
    char whole[80]; /* strftime's %Y would not pad a year below 1000 */
    snprintf(whole, sizeof whole, "%04d-%02d-%02dT%02d:%02d:%02d", parts.tm_year + 1900,
             parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    snprintf(text, CLOCK_TEXT_SIZE, "%.19s.%06dZ", whole, (int)micros);
}
