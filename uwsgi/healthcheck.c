/* `healthcheck PATH SOCKET MARKER WATCH PAUSE`: asks the app for PATH over its replica's uWSGI socket, and exits 0 when
 * it answers well. Docker runs it in every replica, again and again.
 *
 * Each run costs Docker a tenth of a second of CPU, asking the app next to nothing. So a run that follows a good one
 * stays for WATCH seconds and asks every PAUSE seconds, and ends before that only to say what is wrong. The first one
 * ends at once, so that Docker knows at once, and so does one after a run that was bad, or cut off by a `docker pause`:
 * MARKER is the file that a good one leaves, and the next one takes. In C, because Python would stay with 4 MiB.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT 4 /* seconds for an answer */

static char *append(char *end, const char *text)
{
    size_t length = strlen(text);
    *end++ = length & 0xff;
    *end++ = length >> 8;
    return (char *)memcpy(end, text, length) + length;
}

/* A GET of `path` in the uwsgi protocol (https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html); its length. */
static size_t packet(const char *path, char *into)
{
    const char *variables[] = {
        "REQUEST_METHOD", "GET", "REQUEST_URI", path, "PATH_INFO", path, "QUERY_STRING", "",
        "SERVER_NAME", "localhost", "SERVER_PORT", "80", "SERVER_PROTOCOL", "HTTP/1.1", "HTTP_HOST", "localhost",
    };
    char *end = into + 4;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        end = append(end, variables[i]);
    size_t length = end - into - 4;
    memcpy(into, (char[]){0, length & 0xff, length >> 8, 0}, 4);
    return end - into;
}

/* What is wrong, in words; NULL when the app answers with a status from 200 to 399. */
static const char *ask(const char *path, const char *address)
{
    static char answer[65];
    char request[4096];
    struct timeval timeout = {.tv_sec = TIMEOUT};
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, address, sizeof to.sun_path - 1);
    size_t length = packet(path, request);
    ssize_t received = -1;

    int connection = socket(AF_UNIX, SOCK_STREAM, 0);
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout); /* a full queue as well */
    if (connect(connection, (struct sockaddr *)&to, sizeof to) == 0
        && send(connection, request, length, MSG_NOSIGNAL) == (ssize_t)length)
        received = recv(connection, answer, sizeof answer - 1, 0);
    const char *error = errno == EAGAIN ? "timed out" : strerror(errno);
    close(connection);
    if (received < 0)
        return error;
    answer[received] = '\0';
    answer[strcspn(answer, "\r\n")] = '\0';
    const char *status = strchr(answer, ' ');
    status = status ? status + 1 : answer;
    if (status > answer && (*status == '2' || *status == '3'))
        return NULL;
    return *status ? status : "no answer";
}

int main(int count, char **arguments)
{
    if (count != 6 || strlen(arguments[1]) > 1024)
        return fputs("healthcheck PATH SOCKET MARKER WATCH PAUSE\n", stderr), 2;
    const char *path = arguments[1], *address = arguments[2], *marker = arguments[3];
    int watches = unlink(marker) == 0;
    time_t end = time(NULL) + atoi(arguments[4]);
    for (;;) {
        const char *problem = ask(path, address);
        if (problem)
            return fprintf(stderr, "GET %s: %s\n", path, problem), 1;
        if (!watches || time(NULL) >= end)
            return close(creat(marker, 0600)), 0;
        sleep(atoi(arguments[5]));
    }
}
