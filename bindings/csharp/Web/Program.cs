using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using System;
using System.IO;
using System.Threading;
using System.Threading.Tasks;
using ZeroBuffer;
using ZeroBuffer.Extensions.Hosting;

internal static class Program
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private static Task Main(string[] arguments) =>
        (arguments[0] == "filter" ? Filter("web-filter") : Web("web-filter", arguments[1])).RunAsync();

    internal static IHost Filter(string name) => Host.CreateDefaultBuilder()
        .ConfigureServices(services =>
            services.AddZeroBufferServer(name, Invert, config => config.RingSize = 50 << 20))
        .Build();

    private static void Invert(Frame frame)
    {
        Span<byte> data = frame.Data;
        for (int index = 0; index < data.Length; index++)
        {
            data[index] ^= 255;
        }
    }

    internal static IHost Web(string name, string url) => Host.CreateDefaultBuilder()
        .ConfigureServices(services =>
        {
            services.AddZeroBufferClient(name);
            services.AddHealthChecks().AddZeroBuffer();
        })
        .ConfigureWebHostDefaults(web => web.UseUrls(url).Configure(application => application
            .UseRouting()
            .UseEndpoints(endpoints =>
            {
                endpoints.MapPost("/invert", Invert);
                endpoints.MapHealthChecks("/health");
            })))
        .Build();

    private static async Task Invert(HttpContext http)
    {
        var client = http.RequestServices.GetRequiredService<ZeroBufferClient>();
        CancellationToken gone = http.RequestAborted;
        try
        {
            var body = new MemoryStream();
            await http.Request.Body.CopyToAsync(body, gone);
            ReadOnlyMemory<byte> data = body.GetBuffer().AsMemory(0, (int)body.Length);
            byte[] inverted = await Ask(client, data, gone);
            await http.Response.Body.WriteAsync(inverted, gone);
        }
        catch (OperationCanceledException) when (gone.IsCancellationRequested)
        {
            // The user is there no longer; the request in the ring was cancelled.
        }
        catch (Exception error) when (error is TimeoutException || error is ZeroBufferException && !(error is HandlerFailedException))
        {
            // No filter in time, for one.
            http.Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
            await http.Response.WriteAsync(error.Message, gone);
        }
    }

    private static async Task<byte[]> Ask(ZeroBufferClient client, ReadOnlyMemory<byte> data, CancellationToken gone)
    {
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                using (Response response = await client.CallAsync(data, Patience, gone))
                {
                    // A copy: its room in the ring is free again, however slowly the user reads.
                    return response.ToArray();
                }
            }
            catch (PeerGoneException lost) when (lost.Request?.State == RequestState.InDoubt && attempt < 3)
            {
                // The filter had begun it, and was killed. It changes nothing but these bytes, so it may be asked again;
                // three times at most, since it may be these bytes that kill it.
            }
        }
    }
}
