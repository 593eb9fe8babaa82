/*
 * link DEVICE ADDRESS MASK GATEWAY: gives a network card its IPv4 address and the system its way out, and starts the card. For
 * guests, whose network is always the same and who have no other program for it.
 *
 * What is so already is fine; done again it changes nothing.
 *
 * Exit codes: 0 done, 1 not; standard error says why.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr address_of(const char *text)
{
    struct sockaddr_in internet = {.sin_family = AF_INET};
    struct sockaddr any;
    if (inet_pton(AF_INET, text, &internet.sin_addr) != 1) {
        errno = EINVAL;
        fail(text);
    }
    memcpy(&any, &internet, sizeof any);
    return any;
}

int main(int count, char **words)
{
    if (count != 5 || strlen(words[1]) >= IFNAMSIZ) {
        fprintf(stderr, "usage: link DEVICE ADDRESS MASK GATEWAY\n");
        return 1;
    }
    const int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (any < 0) fail("a socket");
    struct ifreq card;
    memset(&card, 0, sizeof card);
    memcpy(card.ifr_name, words[1], strlen(words[1]));
    card.ifr_addr = address_of(words[2]);
    if (ioctl(any, SIOCSIFADDR, &card) != 0) fail(words[2]);
    card.ifr_netmask = address_of(words[3]);
    if (ioctl(any, SIOCSIFNETMASK, &card) != 0) fail(words[3]);
    if (ioctl(any, SIOCGIFFLAGS, &card) != 0) fail(words[1]);
    card.ifr_flags = (short)(card.ifr_flags | IFF_UP);
    if (ioctl(any, SIOCSIFFLAGS, &card) != 0) fail(words[1]);
    struct rtentry out;
    memset(&out, 0, sizeof out);
    out.rt_dst = out.rt_genmask = address_of("0.0.0.0");
    out.rt_gateway = address_of(words[4]);
    out.rt_flags = RTF_UP | RTF_GATEWAY;
    if (ioctl(any, SIOCADDRT, &out) != 0 && errno != EEXIST) fail(words[4]);
    return 0;
}
