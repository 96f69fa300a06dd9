using System;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using ZeroBuffer;

/// <summary>The client: one case, and whether it held.</summary>
internal sealed class Client
{
    /// <summary>For a call, far beyond what any of them takes.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(10);

    /// <summary>Between two looks at whether the server has ended.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);

    private readonly Options _options;
    private DuplexClient _client;

    private Client(Options options)
    {
        _options = options;
    }

    internal static void Run(Options options)
    {
        var client = new Client(options);
        client.Connect();
        try
        {
            client.RunCase();
        }
        finally
        {
            client._client.Dispose();
        }
    }

    private void Connect()
    {
        var config = new ClientConfig
        {
            Channel = _options.IsInPlace ? ChannelKind.InPlace : ChannelKind.TwoBuffers,
            Wait = _options.Wait,
            Metadata = Encoding.UTF8.GetBytes(_options["--client-metadata"] ?? ""),
            ResponseBuffer = new BufferConfig(4096, 16 << 20),
        };
        _client = DuplexClient.Connect(_options.Channel, ConnectTimeout, config);
    }

    private void RunCase()
    {
        switch (_options.Case[0])
        {
            case "roundtrips":
                Roundtrips(int.Parse(_options.Case[1]), int.Parse(_options.Case[2]));
                break;
            case "out-of-order":
                OutOfOrder();
                break;
            case "failure":
                Failure();
                break;
            case "killed":
                Killed();
                break;
            case "hold":
                Hold();
                break;
            case "metadata":
                Metadata(_options.Case[1]);
                break;
            case "restart":
                Restart();
                break;
            case "bench":
                Bench(int.Parse(_options.Case[1]));
                break;
            default:
                throw new Exception("there is no case " + _options.Case[0]);
        }
    }

    private ulong Send(Contents contents, char op, int round)
    {
        using (RequestBuffer request = _client.AcquireRequestBuffer(contents.Size))
        {
            contents.Fill(op, round, request.Data);
            return request.Commit();
        }
    }

    private void Roundtrips(int size, int count)
    {
        var contents = new Contents(size);
        for (int round = 0; round < count; round++)
        {
            ulong sequence = Send(contents, 'T', round);
            using (Response response = _client.ReceiveResponseFor(sequence, Patience))
            {
                Expect.That(response.Sequence == sequence, "the answer is to " + response.Sequence);
                contents.Check(round, response.Data);
            }
        }
    }

    private void OutOfOrder()
    {
        var contents = new Contents(100);
        ulong slow = Send(contents, 'S', 0);
        ulong quick = Send(contents, 'T', 1);
        ReceiveNext(contents, quick, 1);
        ReceiveNext(contents, slow, 0);
    }

    private void ReceiveNext(Contents contents, ulong sequence, int round)
    {
        using (Response response = _client.ReceiveResponse(Patience))
        {
            Expect.That(response.Sequence == sequence, response.Sequence + " came before its turn");
            contents.Check(round, response.Data);
        }
    }

    private void Failure()
    {
        ulong refused = Send(new Contents(100), 'F', 0);
        try
        {
            _client.ReceiveResponseFor(refused, Patience).Dispose();
            throw new Exception("there was an answer instead of a failure");
        }
        catch (HandlerFailedException error) when (_options.IsInPlace)
        {
            Expect.That(error.Sequence == refused, "the failure is said to be that of " + error.Sequence);
            Expect.That(error.Status == 1, "the status is " + error.Status);
            Expect.That(error.HandlerMessage == "refused on request", "the message is " + error.HandlerMessage);
        }
        catch (PeerClosedException) when (!_options.IsInPlace)
        {
            _client.Dispose();
            Connect();
        }
        Roundtrips(100, 1);
    }

    private void Killed()
    {
        ulong sequence = Send(new Contents(100000), 'H', 0);
        try
        {
            _client.ReceiveResponseFor(sequence, Patience).Dispose();
            throw new Exception("there was an answer instead of the server's death");
        }
        catch (PeerDiedException error)
        {
            Expect.That(error.Request != null, "the error is about no request");
            Expect.That(error.Request.Sequence == sequence, error.Request.Sequence + " is said to be lost");
            Expect.That(error.Request.State == RequestState.InDoubt, "it is said to be " + error.Request.State);
        }
    }

    private void Hold()
    {
        Send(new Contents(100), 'S', 0);
        Console.WriteLine("sent");
        Console.In.ReadToEnd();
        throw new Exception("nobody killed this client");
    }

    private void Metadata(string ofServer)
    {
        string found = Encoding.UTF8.GetString(_client.ServerMetadata);
        Expect.That(found == ofServer, "the server's metadata is " + found);
        string own = _options["--client-metadata"] ?? "";
        using (RequestBuffer request = _client.AcquireRequestBuffer(Math.Max(1, Encoding.UTF8.GetByteCount(own))))
        {
            request.Data.Fill((byte)'M');
            ulong sequence = request.Commit();
            using (Response response = _client.ReceiveResponseFor(sequence, Patience))
            {
                string seen = Encoding.UTF8.GetString(response.ToArray());
                Expect.That(seen == own, "the server sees \"" + seen + "\" as the client's metadata");
            }
        }
    }

    private void Restart()
    {
        Roundtrips(100, 1);
        Console.WriteLine("ready");
        AwaitEnd();
        if (_options.IsInPlace)
        {
            _client.Reconnect(ConnectTimeout);
        }
        else
        {
            _client.Dispose();
            Connect();
        }
        Roundtrips(100, 1);
    }

    private void AwaitEnd()
    {
        var since = Stopwatch.StartNew();
        while (since.Elapsed < Patience)
        {
            try
            {
                _client.ReceiveResponse(Pause).Dispose();
                throw new Exception("there was an answer that nobody asked for");
            }
            catch (ChannelTimeoutException)
            {
            }
            catch (PeerClosedException)
            {
                return;
            }
        }
        throw new Exception("the server does not end");
    }

    private void Bench(int count)
    {
        Calls(count / 10);
        double nanoseconds = Calls(count).TotalMilliseconds * 1e6 / count;
        Console.WriteLine(nanoseconds.ToString("F1", CultureInfo.InvariantCulture));
    }

    private TimeSpan Calls(int count)
    {
        var request = new byte[8];
        request[0] = (byte)'T';
        var since = Stopwatch.StartNew();
        for (int number = 0; number < count; number++)
        {
            request[1] = (byte)number;
            request[2] = (byte)(number >> 8);
            using (Response response = _client.Call(request, Patience))
            {
                ReadOnlySpan<byte> answer = response.Data;
                bool right = answer.Length == 8 && answer[0] == 't' && answer[1] == (byte)~request[1]
                    && answer[2] == (byte)~request[2] && answer[7] == 255;
                Expect.That(right, "the answer is wrong");
            }
        }
        return since.Elapsed;
    }
}
