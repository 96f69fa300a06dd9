using System;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>
    /// A call that no thread waits for. In place the native library completes it, on a thread of its own; continuations run
    /// elsewhere. One object with its task, since each call makes one.
    /// </summary>
    internal sealed unsafe class AsyncCall : TaskCompletionSource<Response>
    {
        /// <summary>For as long as the program runs, since the native library may call it on the way out.</summary>
        private static readonly Native.Done Completed = Complete;
        private static readonly IntPtr CompletedPointer = Marshal.GetFunctionPointerForDelegate(Completed);

        private readonly CancellationToken _cancellation;
        private CancellationTokenRegistration _registration;

        /// <summary>1 once it is completed, and 1 once it is registered: the second of the two removes the registration.</summary>
        private int _done;
        private ulong _number;

        private AsyncCall(ClientHandle client, CancellationToken cancellation)
            : base(client, TaskCreationOptions.RunContinuationsAsynchronously)
        {
            _cancellation = cancellation;
        }

        /// <summary>Every task has a place for an object.</summary>
        private ClientHandle Client => (ClientHandle)Task.AsyncState!;

        internal static Task<Response> InPlace(
            ClientHandle client, ReadOnlySpan<byte> data, long nanoseconds, CancellationToken cancellation)
        {
            var call = new AsyncCall(client, cancellation);
            Exception? error = call.Start(data, nanoseconds);
            if (error != null)
            {
                return System.Threading.Tasks.Task.FromException<Response>(error);
            }
            call.Register(state => ((AsyncCall)state!).Cancel());
            return call.Task;
        }

        /// <summary>
        /// Over two buffers, where a response cannot be awaited without a thread: <paramref name="run"/> has one, which no
        /// pool lends. A call that is cancelled ends at once, and its response is released when it comes.
        /// </summary>
        internal static Task<Response> OnThread(ClientHandle client, Func<Response> run, CancellationToken cancellation)
        {
            var call = new AsyncCall(client, cancellation);
            Elsewhere.Run("zerobuffer-call", () => call.Run(run));
            call.Register(state => ((AsyncCall)state!).TrySetCanceled(((AsyncCall)state!)._cancellation));
            return call.Task;
        }

        private Exception? Start(ReadOnlySpan<byte> data, long nanoseconds)
        {
            ClientHandle handle = Client;
            handle.BeginCall();
            GCHandle self = GCHandle.Alloc(this);
            bool isUnderWay = false;
            try
            {
                IntPtr client = handle.Enter();
                try
                {
                    ulong number;
                    Native.View view;
                    fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                    {
                        int status = Native.zb_client_try_call_async(
                            client, bytes, (UIntPtr)data.Length, nanoseconds, CompletedPointer, GCHandle.ToIntPtr(self), &number, &view);
                        isUnderWay = status == 0 && view.Data == null;
                        if (status != 0)
                        {
                            return handle.Failure();
                        }
                    }
                    if (isUnderWay)
                    {
                        _number = number;
                    }
                    else
                    {
                        // It was there at once.
                        SetResult(handle.Hold(view));
                    }
                    return null;
                }
                finally
                {
                    handle.Leave();
                }
            }
            finally
            {
                if (!isUnderWay)
                {
                    // Nobody else completes it.
                    self.Free();
                    handle.EndCall();
                }
            }
        }

        private void Register(Action<object?> cancel)
        {
            if (!_cancellation.CanBeCanceled || Task.IsCompleted)
            {
                return;
            }
            using (Elsewhere.Quiet())
            {
                _registration = _cancellation.Register(cancel, this);
            }
            RemoveRegistration();
        }

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
            if (Client.TryEnter())
            {
                Native.zb_client_cancel_call(Client.Inside, _number);
                Client.Leave();
            }
        }

        /// <summary>Throws nothing: an exception must not leave managed code.</summary>
        private static void Complete(int status, Native.View* view, IntPtr context)
        {
            GCHandle self = GCHandle.FromIntPtr(context);
            var call = (AsyncCall)self.Target!;
            self.Free();
            call.End(status, view);
            call.Client.EndCall();
        }

        private void End(int status, Native.View* view)
        {
            if (status == 0)
            {
                End(Client.Hold(*view));
            }
            else if (status == Native.Cancelled && _cancellation.IsCancellationRequested)
            {
                TrySetCanceled(_cancellation);
            }
            else
            {
                TrySetException(Client.Failure());
            }
            RemoveRegistration();
        }

        /// <summary>Releases it if the call has ended otherwise.</summary>
        private void End(Response response)
        {
            if (!TrySetResult(response))
            {
                response.Dispose();
            }
        }

        private void Run(Func<Response> run)
        {
            try
            {
                End(run());
            }
            catch (Exception error)
            {
                TrySetException(error);
            }
            RemoveRegistration();
        }
    }
}
