/*
 * What .NET Core 3.1 looks for as libssl.so.1.1, on a system that has OpenSSL 3: the three functions that it insists on
 * and that OpenSSL 3 has under other names, or no more. All others are those of OpenSSL 3, which this is linked with.
 */

typedef struct evp_md_st EVP_MD;
typedef struct ssl_st SSL;
typedef struct x509_st X509;

int EVP_MD_get_size(const EVP_MD *digest);
X509 *SSL_get1_peer_certificate(const SSL *connection);

int EVP_MD_size(const EVP_MD *digest) {
    return EVP_MD_get_size(digest);
}

X509 *SSL_get_peer_certificate(const SSL *connection) {
    return SSL_get1_peer_certificate(connection);
}

/* Notes an error of the caller's own, which nobody reads here. */
void ERR_put_error(int library, int function, int reason, const char *file, int line) {
    (void)library, (void)function, (void)reason, (void)file, (void)line;
}
