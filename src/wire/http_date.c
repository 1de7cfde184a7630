#define _GNU_SOURCE /* timegm */
#include "wire/http_date.h"

#include <stdio.h>
#include <time.h>

static const char days[7][10] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday",
                                 "Saturday"};
static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

/* w, W: name of a day, short or long; D, d: two digits of it, or one behind a blank; M: name of the
 * month; Y, y: year of four, of two digits; h, m, s: two digits; Z: GMT; else itself. */
static const char *const forms[] = {"w, D M Y h:m:s Z", "W, D-M-y h:m:s Z", "w M d h:m:s Y"};

void http_date_text(char text[HTTP_DATE_TEXT], int64_t seconds)
{
    static const int64_t first = -62135596800, last = 253402300799;
    time_t time = (time_t)(seconds < first ? first : seconds > last ? last : seconds);
    struct tm parts;
    gmtime_r(&time, &parts);
    int length = snprintf(text, HTTP_DATE_TEXT, "%.3s, %02d %s %04d %02d:%02d:%02d GMT",
                          days[parts.tm_wday], parts.tm_mday, months[parts.tm_mon],
                          parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
    (void)length;
}

static bool take(struct span *rest, struct span wanted)
{
    if (!span_starts_with(*rest, wanted))
        return false;
    *rest = (struct span){rest->data + wanted.length, rest->length - wanted.length};
    return true;
}

static bool take_number(int *ret, struct span *rest, size_t digits, bool blank_first)
{
    int number = 0;
    if (rest->length < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        uint8_t byte = rest->data[i];
        if (byte == ' ' && i == 0 && blank_first)
            continue;
        if (byte < '0' || byte > '9')
            return false;
        number = number * 10 + (byte - '0');
    }
    *ret = number;
    *rest = (struct span){rest->data + digits, rest->length - digits};
    return true;
}

static bool take_day_name(int *ret, struct span *rest, bool whole)
{
    for (*ret = 0; *ret < 7; ++*ret) {
        struct span name = span_of_text(days[*ret]);
        if (!whole)
            name.length = 3;
        if (take(rest, name))
            return true;
    }
    return false;
}

static bool take_month(int *ret, struct span *rest)
{
    for (*ret = 0; *ret < 12; ++*ret)
        if (take(rest, span_of_text(months[*ret])))
            return true;
    return false;
}

static bool take_year(int *ret, struct span *rest, size_t digits)
{
    int year;
    if (!take_number(&year, rest, digits, false))
        return false;
    *ret = digits == 4 ? year - 1900 : year < 70 ? year + 100 : year;
    return true;
}

static bool take_part(struct tm *parts, struct span *rest, char part)
{
    const char self[] = {part, '\0'};
    switch (part) {
    case 'w':
        return take_day_name(&parts->tm_wday, rest, false);
    case 'W':
        return take_day_name(&parts->tm_wday, rest, true);
    case 'D':
    case 'd':
        return take_number(&parts->tm_mday, rest, 2, part == 'd');
    case 'M':
        return take_month(&parts->tm_mon, rest);
    case 'Y':
        return take_year(&parts->tm_year, rest, 4);
    case 'y':
        return take_year(&parts->tm_year, rest, 2);
    case 'h':
        return take_number(&parts->tm_hour, rest, 2, false);
    case 'm':
        return take_number(&parts->tm_min, rest, 2, false);
    case 's':
        return take_number(&parts->tm_sec, rest, 2, false);
    case 'Z':
        return take(rest, SPAN("GMT"));
    default:
        return take(rest, span_of_text(self));
    }
}

/* No 31st of February: what the calendar would move is none. */
static bool is_date(struct tm *parts, int64_t *ret_seconds)
{
    struct tm right = *parts;
    if (parts->tm_mday < 1 || parts->tm_mday > 31 || parts->tm_hour > 23 || parts->tm_min > 59 ||
        parts->tm_sec > 60)
        return false;
    *ret_seconds = (int64_t)timegm(&right);
    return right.tm_mon == parts->tm_mon || parts->tm_sec == 60;
}

bool http_date_read(int64_t *ret_seconds, struct span text)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm parts = {0};
        struct span rest = text;
        const char *form = forms[i];
        int64_t seconds;
        while (*form != '\0' && take_part(&parts, &rest, *form))
            form++;
        if (*form == '\0' && rest.length == 0 && is_date(&parts, &seconds)) {
            *ret_seconds = seconds;
            return true;
        }
    }
    return false;
}
