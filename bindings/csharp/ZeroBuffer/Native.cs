using System;
using System.Runtime.InteropServices;
using System.Security;

// The native library fills the fields that seem to be set nowhere.
#pragma warning disable 0649

namespace ZeroBuffer
{
    /// <summary>The C interface, as zerobuffer.h declares it. Every signature is blittable.</summary>
    [SuppressUnmanagedCodeSecurity]
    internal static unsafe class Native
    {
        private const string Library = "zerobuffer";

        /// <summary>What a call is completed with that was cancelled. No error: nothing else returns it.</summary>
        internal const int Cancelled = -1;

        /// <summary>The version of the interface that this file was written for.</summary>
        private const uint Version = 1;

        static Native()
        {
            uint found = Platform.First(zb_abi_version);
            if (found != Version)
            {
                throw new DllNotFoundException(
                    "libzerobuffer has version " + found + " of its interface, this assembly needs " + Version
                    + ": install the two together");
            }
        }

        internal struct Error
        {
            internal UIntPtr Size;
            internal int Status;
            internal int OsError;
            internal ulong Sequence;
            internal int RequestState;
            internal uint HandlerStatus;
            internal ulong Asked;
            internal ulong Allowed;
            internal ulong InFlight;
            internal byte* Message;
            internal UIntPtr MessageLength;
            internal byte* Subject;
            internal UIntPtr SubjectLength;
            internal byte* Detail;
            internal UIntPtr DetailLength;
        }

        internal struct ServerConfig
        {
            internal UIntPtr Size;
            internal uint Kind;
            internal uint Mode;
            internal UIntPtr MetadataSize;
            internal UIntPtr PayloadSize;
            internal uint Wait;
            internal uint Workers;
            internal byte* Metadata;
            internal UIntPtr MetadataLength;
            internal long StopTimeout;
            internal uint Liveness;
            internal uint Reserved;
        }

        internal struct ClientConfig
        {
            internal UIntPtr Size;
            internal uint Channel;
            internal uint Threads;
            internal uint Wait;
            internal uint MaxInFlight;
            internal long SendTimeout;
            internal byte* Metadata;
            internal UIntPtr MetadataLength;
            internal uint ResendNotStarted;
            internal uint HasOwner;
            internal uint Owner;
            internal uint Mode;
            internal uint Liveness;
            internal uint Connections;
            internal UIntPtr ResponseMetadataSize;
            internal UIntPtr ResponsePayloadSize;
            internal UIntPtr RingSize;
            internal byte* Label;
            internal byte* Directory;
        }

        internal struct ServiceConfig
        {
            internal UIntPtr Size;
            internal UIntPtr RingSize;
            internal UIntPtr MetadataSize;
            internal UIntPtr MaxRingSize;
            internal ulong MaxBytes;
            internal uint MaxClients;
            internal uint MaxClientsPerUser;
            internal uint Wait;
            internal uint Workers;
            internal byte* Metadata;
            internal UIntPtr MetadataLength;
            internal long StopTimeout;
            internal uint* Users;
            internal UIntPtr UserCount;
            internal uint* Groups;
            internal UIntPtr GroupCount;
            internal byte* Directory;
            internal uint HasListener;
            internal int Listener;
            internal uint HandlersPerClient;
            internal uint Reserved;
        }

        /// <summary>Who has sent a request.</summary>
        internal struct ClientIdentity
        {
            internal UIntPtr Size;
            internal ulong Number;
            internal byte* Label;
            internal UIntPtr LabelLength;
            internal uint Pid;
            internal uint Uid;
            internal uint Gid;
            internal uint Reserved;
        }

        internal struct ReaderConfig
        {
            internal UIntPtr Size;
            internal UIntPtr MetadataSize;
            internal UIntPtr PayloadSize;
            internal uint Mode;
            internal uint Wait;
            internal uint Liveness;
            internal uint Reserved;
        }

        internal struct WriterConfig
        {
            internal UIntPtr Size;
            internal long WriteTimeout;
            internal uint Wait;
            internal uint Liveness;
            internal uint HasOwner;
            internal uint RestartSequence;
            internal uint Owner;
            internal uint Reserved;
        }

        internal struct ClientState
        {
            internal UIntPtr Size;
            internal UIntPtr MaxRequestSize;
            internal UIntPtr InFlight;
            internal uint IsInPlace;
            internal uint IsDesynchronised;
        }

        internal struct Resent
        {
            internal ulong Former;
            internal ulong Sequence;
        }

        internal struct Lost
        {
            internal ulong Sequence;
            internal int State;
            internal uint Reserved;
        }

        internal struct Reconnected
        {
            internal Resent* Resent;
            internal UIntPtr ResentCount;
            internal Lost* Lost;
            internal UIntPtr LostCount;
        }

        /// <summary>Bytes to read.</summary>
        internal struct View
        {
            internal byte* Data;
            internal UIntPtr Length;
            internal ulong Sequence;
            internal fixed ulong Opaque[8];
        }

        /// <summary>Bytes to fill.</summary>
        internal struct Buffer
        {
            internal byte* Data;
            internal UIntPtr Length;
            internal UIntPtr Capacity;
            internal fixed ulong Opaque[2];
        }

        /// <summary>A request in a server's hands.</summary>
        internal struct Frame
        {
            internal byte* Data;
            internal UIntPtr Length;
            internal UIntPtr Capacity;
            internal ulong Sequence;
            internal fixed ulong Opaque[3];
        }

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int Handler(Frame* frame, IntPtr user);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void Release(IntPtr user);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void Done(int status, View* response, IntPtr context);

        [DllImport(Library)] internal static extern uint zb_abi_version();
        [DllImport(Library)] internal static extern void zb_include_in_core_dumps(byte include);
        [DllImport(Library)] internal static extern Error* zb_last_error();

        [DllImport(Library)] internal static extern UIntPtr zb_payload_size_for_frames(UIntPtr frame_size, UIntPtr in_flight);

        [DllImport(Library)] internal static extern int zb_server_create(byte* name, ServerConfig* config, IntPtr* server);
        [DllImport(Library)] internal static extern int zb_service_create(byte* name, ServiceConfig* config, IntPtr* server);
        [DllImport(Library)] internal static extern UIntPtr zb_server_clients(IntPtr server);
        [DllImport(Library)] internal static extern void zb_server_shutdown(IntPtr server);
        [DllImport(Library)] internal static extern void zb_server_close(IntPtr server);
        [DllImport(Library)] internal static extern int zb_server_start(IntPtr server, IntPtr handler, IntPtr user, IntPtr release);
        [DllImport(Library)] internal static extern int zb_server_receive(IntPtr server, long timeout, Frame* frame);
        [DllImport(Library)] internal static extern int zb_server_stop(IntPtr server);
        [DllImport(Library)] internal static extern byte zb_server_is_running(IntPtr server);
        [DllImport(Library)] internal static extern byte zb_server_is_client_connected(IntPtr server);

        [DllImport(Library)] internal static extern int zb_frame_resize(Frame* frame, UIntPtr length);
        [DllImport(Library)] internal static extern int zb_frame_metadata(Frame* frame, byte** data, UIntPtr* length);
        [DllImport(Library)] internal static extern byte zb_frame_is_cancelled(Frame* frame);
        [DllImport(Library)] internal static extern int zb_frame_fail(Frame* frame, byte* message, UIntPtr length);
        [DllImport(Library)] internal static extern void zb_frame_abandon(Frame* frame);
        [DllImport(Library)] internal static extern int zb_frame_respond(Frame* frame);
        [DllImport(Library)] internal static extern int zb_frame_detach(Frame* frame);
        [DllImport(Library)] internal static extern int zb_frame_client(Frame* frame, ClientIdentity* client);
        [DllImport(Library)] internal static extern int zb_frame_reply(Frame* frame, UIntPtr length, byte** data);

        [DllImport(Library)] internal static extern int zb_client_connect(byte* name, ClientConfig* config, long timeout, IntPtr* client);
        [DllImport(Library)] internal static extern void zb_client_shutdown(IntPtr client);
        [DllImport(Library)] internal static extern void zb_client_close(IntPtr client);
        [DllImport(Library)] internal static extern int zb_client_call(IntPtr client, byte* data, UIntPtr length, long timeout, View* response);
        [DllImport(Library)] internal static extern int zb_client_send(IntPtr client, byte* data, UIntPtr length, ulong* sequence);
        [DllImport(Library)] internal static extern int zb_client_acquire(IntPtr client, UIntPtr size, UIntPtr capacity, UIntPtr alignment, Buffer* buffer);
        [DllImport(Library)] internal static extern int zb_client_receive(IntPtr client, ulong sequence, long timeout, View* response);
        [DllImport(Library)] internal static extern byte zb_client_cancel(IntPtr client, ulong sequence);
        [DllImport(Library)] internal static extern int zb_client_reconnect(IntPtr client, long timeout, Reconnected* report);
        [DllImport(Library)] internal static extern byte zb_client_is_server_connected(IntPtr client);
        [DllImport(Library)] internal static extern int zb_client_inspect(IntPtr client, ClientState* state);
        [DllImport(Library)] internal static extern int zb_client_server_metadata(IntPtr client, byte* buffer, UIntPtr capacity, UIntPtr* length);

        [DllImport(Library)] internal static extern int zb_client_call_async(IntPtr client, byte* data, UIntPtr length, long timeout, IntPtr done, IntPtr context, ulong* call);
        [DllImport(Library)] internal static extern int zb_client_try_call_async(IntPtr client, byte* data, UIntPtr length, long timeout, IntPtr done, IntPtr context, ulong* call, View* response);
        [DllImport(Library)] internal static extern int zb_client_call_async_with(IntPtr client, UIntPtr size, UIntPtr capacity, UIntPtr alignment, IntPtr fill, long timeout, IntPtr done, IntPtr context, ulong* call);
        [DllImport(Library)] internal static extern byte zb_client_cancel_call(IntPtr client, ulong call);

        [DllImport(Library)] internal static extern int zb_buffer_commit(Buffer* buffer, ulong* sequence);
        [DllImport(Library)] internal static extern void zb_buffer_abandon(Buffer* buffer);

        [DllImport(Library)] internal static extern void zb_view_release(View* view);
        [DllImport(Library)] internal static extern int zb_view_detach(View* view);

        [DllImport(Library)] internal static extern int zb_reader_create(byte* name, ReaderConfig* config, IntPtr* reader);
        [DllImport(Library)] internal static extern void zb_reader_shutdown(IntPtr reader);
        [DllImport(Library)] internal static extern void zb_reader_close(IntPtr reader);
        [DllImport(Library)] internal static extern int zb_reader_read(IntPtr reader, long timeout, View* frame);
        [DllImport(Library)] internal static extern int zb_reader_metadata(IntPtr reader, byte* buffer, UIntPtr capacity, UIntPtr* length);
        [DllImport(Library)] internal static extern byte zb_reader_is_writer_connected(IntPtr reader);

        [DllImport(Library)] internal static extern int zb_writer_connect(byte* name, WriterConfig* config, long timeout, IntPtr* writer);
        [DllImport(Library)] internal static extern void zb_writer_shutdown(IntPtr writer);
        [DllImport(Library)] internal static extern void zb_writer_close(IntPtr writer);
        [DllImport(Library)] internal static extern int zb_writer_write(IntPtr writer, byte* data, UIntPtr length, ulong* sequence);
        [DllImport(Library)] internal static extern int zb_writer_acquire(IntPtr writer, UIntPtr size, Buffer* buffer);
        [DllImport(Library)] internal static extern int zb_writer_set_metadata(IntPtr writer, byte* data, UIntPtr length);
        [DllImport(Library)] internal static extern int zb_writer_set_write_timeout(IntPtr writer, long timeout);
        [DllImport(Library)] internal static extern ulong zb_writer_next_sequence(IntPtr writer);
        [DllImport(Library)] internal static extern byte zb_writer_is_reader_connected(IntPtr writer);
    }
}
