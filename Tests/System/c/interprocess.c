/* Shared locks, System V IPC, signal and process descriptors, timers and processor time: prints the checks that fail. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/sem.h>
#include <sys/msg.h>
#include <sys/signalfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <poll.h>
#include <semaphore.h>
#define CK(x) do{ if(!(x)) {printf("FAIL %s line %d errno %s\n",#x,__LINE__,strerror(errno)); fails++;} }while(0)
int fails;
static volatile int ticks; static void tick(int s, siginfo_t*i, void*c){ticks++;}
int main(){
 // shared mutex + cond + sem between forked
 struct sh { pthread_mutex_t m; pthread_cond_t c; sem_t s; int n; } *sh = mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0);
 pthread_mutexattr_t ma; pthread_mutexattr_init(&ma); pthread_mutexattr_setpshared(&ma,1); pthread_mutexattr_setrobust(&ma,1); pthread_mutex_init(&sh->m,&ma);
 pthread_condattr_t ca; pthread_condattr_init(&ca); pthread_condattr_setpshared(&ca,1); pthread_cond_init(&sh->c,&ca); sem_init(&sh->s,1,0);
 for(int i=0;i<4;i++) if(!fork()){ for(int j=0;j<5000;j++){pthread_mutex_lock(&sh->m); sh->n++; pthread_cond_broadcast(&sh->c); pthread_mutex_unlock(&sh->m); } sem_post(&sh->s); _exit(0);} 
 pthread_mutex_lock(&sh->m); while(sh->n<20000) pthread_cond_wait(&sh->c,&sh->m); pthread_mutex_unlock(&sh->m);
 for(int i=0;i<4;i++) sem_wait(&sh->s); while(wait(0)>0); CK(sh->n==20000);
 // robust
 if(!fork()){ pthread_mutex_lock(&sh->m); _exit(0);} wait(0); int r=pthread_mutex_lock(&sh->m); CK(r==EOWNERDEAD); pthread_mutex_consistent(&sh->m); pthread_mutex_unlock(&sh->m);
 // sysv shm
 int id=shmget(IPC_PRIVATE,10000,IPC_CREAT|0600); CK(id>=0); char*p=shmat(id,0,0); CK(p!=(void*)-1); p[0]=1;
 if(!fork()){ p[0]=42; p[9999]=7; _exit(0);} wait(0); CK(p[0]==42&&p[9999]==7);
 struct shmid_ds ds; CK(shmctl(id,IPC_STAT,&ds)==0); CK(ds.shm_nattch==1&&ds.shm_segsz==10000); CK(shmctl(id,IPC_RMID,0)==0); CK(p[0]==42); CK(shmdt(p)==0); CK(shmctl(id,IPC_STAT,&ds)==-1&&errno==EINVAL);
 // sem
 int sid=semget(IPC_PRIVATE,2,IPC_CREAT|0600); CK(sid>=0); if(!fork()){ struct sembuf b={0,-1,0}; semop(sid,&b,1); struct sembuf c={1,1,SEM_UNDO}; semop(sid,&c,1); _exit(0);} usleep(10000); struct sembuf b={0,1,0}; CK(semop(sid,&b,1)==0); wait(0); CK(semctl(sid,1,GETVAL)==0); 
 struct timespec ts={0,1000000}; struct sembuf w={0,-1,0}; CK(semtimedop(sid,&w,1,&ts)==-1&&errno==EAGAIN); CK(semctl(sid,0,IPC_RMID)==0);
 // msg
 int q=msgget(IPC_PRIVATE,0600|IPC_CREAT); struct{long t;char x[10];} m={3,"hey"}; CK(msgsnd(q,&m,4,0)==0); m.t=1; strcpy(m.x,"one"); CK(msgsnd(q,&m,4,0)==0); CK(msgrcv(q,&m,10,-5,0)==4&&!strcmp(m.x,"one")); CK(msgrcv(q,&m,10,0,0)==4&&m.t==3); CK(msgrcv(q,&m,10,0,IPC_NOWAIT)==-1&&errno==ENOMSG); msgctl(q,IPC_RMID,0);
 // signalfd
 sigset_t s; sigemptyset(&s); sigaddset(&s,SIGUSR1); sigaddset(&s,SIGCHLD); sigprocmask(SIG_BLOCK,&s,0); int fd=signalfd(-1,&s,0); struct pollfd pf={fd,POLLIN}; CK(poll(&pf,1,0)==0); if(!fork()){kill(getppid(),SIGUSR1);_exit(3);} CK(poll(&pf,1,1000)==1); struct signalfd_siginfo si; CK(read(fd,&si,sizeof si)==128); CK(si.ssi_signo==SIGUSR1||si.ssi_signo==SIGCHLD); CK(read(fd,&si,sizeof si)==128); CK(si.ssi_signo!=SIGCHLD||si.ssi_status==3); wait(0);
 // posix timers
 struct sigaction sa={0}; sa.sa_sigaction=tick; sa.sa_flags=SA_SIGINFO; sigaction(SIGRTMIN,&sa,0); timer_t t; struct sigevent ev={0}; ev.sigev_notify=SIGEV_SIGNAL; ev.sigev_signo=SIGRTMIN; CK(timer_create(CLOCK_MONOTONIC,&ev,&t)==0); struct itimerspec it={{0,2000000},{0,2000000}}; CK(timer_settime(t,0,&it,0)==0); alarm(20); while(ticks<8) pause(); alarm(0); CK(timer_delete(t)==0);
 // cpu
 struct timespec c1; clock_gettime(CLOCK_PROCESS_CPUTIME_ID,&c1); volatile long x=0; for(long i=0;i<50000000;i++)x+=i; struct timespec c2; clock_gettime(CLOCK_PROCESS_CPUTIME_ID,&c2); long dn=(c2.tv_sec-c1.tv_sec)*1000000000L+c2.tv_nsec-c1.tv_nsec; CK(dn>1000000); struct rusage ru; getrusage(RUSAGE_SELF,&ru); CK(ru.ru_utime.tv_sec*1000000+ru.ru_utime.tv_usec>=dn/2000);
 clockid_t cid; pthread_getcpuclockid(pthread_self(),&cid); CK(clock_gettime(cid,&c1)==0); CK(c1.tv_nsec||c1.tv_sec);
 // children
 if(!fork()){ for(long i=0;i<50000000;i++)x+=i; _exit(0);} wait4(-1,0,0,&ru); CK(ru.ru_utime.tv_usec>1000||ru.ru_utime.tv_sec); getrusage(RUSAGE_CHILDREN,&ru); CK(ru.ru_utime.tv_usec>1000);
 // pidfd
 pid_t c=fork(); if(!c){ pause(); _exit(0);} int pfd=syscall(434,c,0); CK(pfd>=0); pf.fd=pfd; CK(poll(&pf,1,10)==0); CK(syscall(424,pfd,SIGTERM,0,0)==0); CK(poll(&pf,1,1000)==1); siginfo_t inf; CK(waitid(3,pfd,&inf,WEXITED)==0&&inf.si_status==SIGTERM);
 CK(nice(5)==5); CK(getpriority(PRIO_PROCESS,0)==5);
 printf("done %d\n",fails); return fails; }
