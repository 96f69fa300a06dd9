using System;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>
    /// A call that no thread waits for. In place the native library completes it, on a thread of its own; continuations run
    /// elsewhere.
    /// </summary>
    internal sealed unsafe class AsyncCall
    {
        /// <summary>For as long as the program runs, since the native library may call it on the way out.</summary>
        private static readonly Native.Done Completed = Complete;
        private static readonly IntPtr CompletedPointer = Marshal.GetFunctionPointerForDelegate(Completed);

        private readonly TaskCompletionSource<Response> _source =
            new TaskCompletionSource<Response>(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly ClientHandle _client;
        private readonly CancellationToken _cancellation;
        private CancellationTokenRegistration _registration;

        /// <summary>1 once it is completed, and 1 once it is registered: the second of the two removes the registration.</summary>
        private int _done;
        private ulong _number;

        private AsyncCall(ClientHandle client, CancellationToken cancellation)
        {
            _client = client;
            _cancellation = cancellation;
        }

        internal static Task<Response> InPlace(
            ClientHandle client, ReadOnlySpan<byte> data, long nanoseconds, CancellationToken cancellation)
        {
            var call = new AsyncCall(client, cancellation);
            Exception error = call.Start(data, nanoseconds);
            if (error != null)
            {
                return Task.FromException<Response>(error);
            }
            call.Register(state => ((AsyncCall)state).Cancel());
            return call._source.Task;
        }

        /// <summary>
        /// Over two buffers, where a response cannot be awaited without a thread: <paramref name="run"/> has one, which no
        /// pool lends. A call that is cancelled ends at once, and its response is released when it comes.
        /// </summary>
        internal static Task<Response> OnThread(Func<Response> run, CancellationToken cancellation)
        {
            var call = new AsyncCall(null, cancellation);
            using (Quiet())
            {
                new Thread(() => call.Run(run)) { IsBackground = true, Name = "zerobuffer-call" }.Start();
            }
            call.Register(state => ((AsyncCall)state)._source.TrySetCanceled(((AsyncCall)state)._cancellation));
            return call._source.Task;
        }

        private Exception Start(ReadOnlySpan<byte> data, long nanoseconds)
        {
            GCHandle self = GCHandle.Alloc(this);
            int status = -1;
            try
            {
                IntPtr client = _client.Enter();
                try
                {
                    ulong number;
                    fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                    {
                        status = Native.zb_client_call_async(
                            client, bytes, (UIntPtr)data.Length, nanoseconds, CompletedPointer, GCHandle.ToIntPtr(self), &number);
                    }
                    _number = number;
                    return status == 0 ? null : _client.Failure();
                }
                finally
                {
                    _client.Leave();
                }
            }
            finally
            {
                if (status != 0)
                {
                    // It was not started, so nobody completes it.
                    self.Free();
                }
            }
        }

        private void Register(Action<object> cancel)
        {
            if (!_cancellation.CanBeCanceled)
            {
                return;
            }
            using (Quiet())
            {
                _registration = _cancellation.Register(cancel, this);
            }
            RemoveRegistration();
        }

        /// <summary>Without it the caller's context would be kept until the call is completed.</summary>
        private static IDisposable Quiet() =>
            ExecutionContext.IsFlowSuppressed() ? (IDisposable)null : ExecutionContext.SuppressFlow();

        /// <summary>Never waits for a callback that runs, which may wait for the thread that completes.</summary>
        private void RemoveRegistration()
        {
            if (Interlocked.Exchange(ref _done, 1) == 1)
            {
                _ = _registration.DisposeAsync();
            }
        }

        private void Cancel()
        {
            if (_client.TryEnter())
            {
                Native.zb_client_cancel_call(_client.Inside, _number);
                _client.Leave();
            }
        }

        /// <summary>Throws nothing: an exception must not leave managed code.</summary>
        private static void Complete(int status, Native.View* view, IntPtr context)
        {
            GCHandle self = GCHandle.FromIntPtr(context);
            var call = (AsyncCall)self.Target;
            self.Free();
            if (status == Native.Cancelled && call._cancellation.IsCancellationRequested)
            {
                call._source.TrySetCanceled(call._cancellation);
                call.RemoveRegistration();
            }
            else
            {
                call.Run(() => status == 0 ? new Response(view) : throw call._client.Failure());
            }
        }

        private void Run(Func<Response> run)
        {
            try
            {
                Response response = run();
                if (!_source.TrySetResult(response))
                {
                    response.Dispose();
                }
            }
            catch (Exception error)
            {
                _source.TrySetException(error);
            }
            RemoveRegistration();
        }
    }
}
