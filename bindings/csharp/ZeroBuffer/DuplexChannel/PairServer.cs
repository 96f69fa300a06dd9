using Microsoft.Extensions.Logging;
using System;
using System.Diagnostics;
using System.Threading;

namespace ZeroBuffer.DuplexChannel
{
    /// <summary>The server of version 1: a reader of requests, and a writer of responses. It may be started again after its end.</summary>
    internal sealed class PairServer : IImmutableDuplexServer
    {
        private static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(5);
        private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(20);

        private readonly string _channel;
        private readonly BufferConfig _config;
        private readonly TimeSpan _timeout;
        private readonly ILoggerFactory _loggers;
        private readonly ILogger _logger;
        private readonly object _lock = new object();
        private Run? _run;
        private bool _disposed;

        internal PairServer(string channel, BufferConfig config, TimeSpan timeout, ILoggerFactory loggers)
        {
            _channel = channel;
            _config = config;
            _timeout = timeout;
            _loggers = loggers;
            _logger = loggers.CreateLogger("ZeroBuffer.DuplexChannel.ImmutableDuplexServer");
        }

        public event EventHandler<ErrorEventArgs>? OnError;

        public bool IsRunning => Volatile.Read(ref _run)?.IsServing ?? false;

        public void Start(RequestHandler onFrame, MetadataHandler? onInit = null, ProcessingMode mode = ProcessingMode.SingleThread)
        {
            if (onFrame == null)
            {
                throw new ArgumentNullException("onFrame");
            }
            if (mode != ProcessingMode.SingleThread)
            {
                throw new NotSupportedException("a server works in the mode SingleThread; " + mode + " was asked for");
            }
            lock (_lock)
            {
                if (_disposed)
                {
                    throw new ObjectDisposedException("IImmutableDuplexServer");
                }
                if (IsRunning)
                {
                    throw new InvalidOperationException("the server runs");
                }
                _run = new Run(this, onFrame, onInit);
            }
        }

        public void Stop()
        {
            Run? run;
            lock (_lock)
            {
                run = _run;
                _run = null;
            }
            run?.Stop();
        }

        public void Dispose()
        {
            lock (_lock)
            {
                _disposed = true;
            }
            Stop();
        }

        private void Tell(Exception error, string what) => ErrorReport.Tell(this, OnError, _logger, error, what, _channel);

        /// <summary>From a start to its end.</summary>
        private sealed class Run
        {
            private readonly PairServer _server;
            private readonly RequestHandler _onFrame;
            private readonly Reader _requests;
            private readonly Thread _thread;
            private MetadataHandler? _onInit;
            private volatile bool _isStopping;
            private volatile bool _isServing = true;

            internal Run(PairServer server, RequestHandler onFrame, MetadataHandler? onInit)
            {
                _server = server;
                _onFrame = onFrame;
                _onInit = onInit;
                _requests = new Reader(Names.Requests(server._channel), server._config, server._loggers.CreateLogger<Reader>());
                // The program goes on as long as it has a client.
                _thread = new Thread(Serve) { IsBackground = false, Name = "DuplexServer_" + server._channel };
                _thread.Start();
            }

            internal bool IsServing => _isServing;

            /// <summary>A handler that stops its own server does not wait for itself.</summary>
            internal void Stop()
            {
                _isStopping = true;
                _isServing = false;
                _requests.EndWaits();
                if (Thread.CurrentThread != _thread)
                {
                    _thread.Join(StopTimeout);
                }
            }

            private void Serve()
            {
                try
                {
                    using (_requests)
                    using (Writer responses = Connect())
                    {
                        while (!_isStopping && Next(responses)) { }
                    }
                }
                catch (Exception error) when (!_isStopping)
                {
                    _server.Tell(error, "Channel {ChannelName} has no buffer for responses");
                }
                catch (Exception error)
                {
                    _server._logger.LogDebug(error, "Channel {ChannelName} was stopped", _server._channel);
                }
                _isServing = false;
            }

            /// <summary>Until a client has made the buffer for responses.</summary>
            private Writer Connect()
            {
                string name = Names.Responses(_server._channel);
                var since = Stopwatch.StartNew();
                while (true)
                {
                    try
                    {
                        return new Writer(name, _server._loggers.CreateLogger<Writer>());
                    }
                    catch (BufferNotFoundException) when (!_isStopping && since.Elapsed < _server._timeout)
                    {
                        Thread.Sleep(Pause);
                    }
                    catch (BufferNotFoundException error)
                    {
                        throw new TimeoutException("no client has made " + name + " within " + _server._timeout, error);
                    }
                }
            }

            /// <summary>Waits for a request, and works on it. False at the end.</summary>
            private bool Next(Writer responses)
            {
                try
                {
                    using (Frame request = _requests.ReadFrame(_server._timeout))
                    {
                        if (request.IsValid)
                        {
                            Handle(request, responses);
                        }
                    }
                    return true;
                }
                catch (PeerGoneException error)
                {
                    _server.Tell(error, "The client of channel {ChannelName} has ended");
                    return false;
                }
                catch (Exception error) when (!_isStopping)
                {
                    _server.Tell(error, "Channel {ChannelName} has failed");
                    return !(error is ZeroBufferException);
                }
            }

            private void Handle(Frame request, Writer responses)
            {
                if (_onInit != null)
                {
                    _onInit(_requests.GetMetadata());
                    _onInit = null;
                }
                try
                {
                    _onFrame(request, responses);
                }
                catch (Exception error)
                {
                    _server.Tell(error, "The handler of channel {ChannelName} failed");
                }
            }
        }
    }
}
