/* The example of docs/c.md, which is this program from the first line of code on. */

#include <stdio.h>
#include <zerobuffer.h>

static int32_t invert(zb_frame *frame, void *user) {
    (void)user;
    for (size_t i = 0; i < frame->len; i++) frame->data[i] = 255 - frame->data[i];
    return 0; /* or zb_frame_fail, and the client gets ZB_HANDLER_FAILED */
}

int main(void) {
    zb_server_config config = {.size = sizeof config, .payload_size = 1 << 20};
    zb_server *server;
    zb_client *client;
    zb_view answer;
    if (zb_server_create("c-readme", &config, &server) != ZB_OK ||
        zb_server_start(server, invert, NULL, NULL) != ZB_OK ||
        zb_client_connect("c-readme", NULL, 5000000000, &client) != ZB_OK ||
        zb_client_call(client, (const uint8_t *)"\0\1\2", 3, 1000000000, &answer) != ZB_OK) {
        fprintf(stderr, "%s\n", zb_last_error()->message);
        return 1;
    }
    int right = answer.data[0] == 255 && answer.data[2] == 253;
    zb_view_release(&answer);
    zb_client_close(client);
    zb_server_close(server);
    return right ? 0 : 1;
}
